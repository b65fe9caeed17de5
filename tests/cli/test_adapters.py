"""A model that learns adapters, made, taught, shown and exported on the command line."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.client import Client
from cli.exit_codes import ExitCode
from tests.api.learning import learn
from tests.cli.documents import document
from tests.tiny_clip import tiny_tensors


@pytest.fixture
def adapted(run, service, tmp_path, request):
    """A model of the test's own, which has learned one adapter; the adapter's file is `tmp_path`/trained."""
    name = f"l{abs(hash(request.node.name)) % 10**8}"
    created = run(
        "model", "create", name, "--base", "tiny", "--tuning", "lora", "--lora-rank", 4, "--lora-seed", 3
    )
    assert created.exit_code == ExitCode.OK, created.stderr
    assert run("model", "adapter", name, tmp_path / "start").exit_code == ExitCode.OK
    start = load_file(tmp_path / "start")
    trained = {key: factor + 0.1 * torch.ones_like(factor) for key, factor in start.items()}
    save_file(trained, tmp_path / "trained")
    learn(service.services, name, "pets", classes=("cat", "dog"), checkpoint=tmp_path / "trained")
    yield name
    with Client(service.url) as client:
        client.remove_model(name)


def test_tuning_rank_and_seed_are_what_the_command_line_said(run, adapted):
    shown = document(run("model", "show", adapted, "--json"))
    assert (shown["tuning"], shown["lora_rank"], shown["lora_seed"]) == ("lora", 4, 3)
    text = run("model", "show", adapted).stdout
    assert "lora, rank 4" in text
    assert "what adapters start from" in text
    assert "base and 1 adapters instead" in text


def test_an_expert_is_exported_whole_and_as_its_adapter(run, adapted, tmp_path):
    whole, alone = tmp_path / "whole.safetensors", tmp_path / "alone.safetensors"
    assert run("export", adapted, "pets", whole).exit_code == ExitCode.OK
    assert run("export", adapted, "pets", alone, "--adapter").exit_code == ExitCode.OK
    assert load_file(whole).keys() == tiny_tensors().keys()
    found = load_file(alone)
    for name, factor in load_file(tmp_path / "trained").items():
        torch.testing.assert_close(found[name], factor, rtol=1e-6, atol=1e-6)


def test_people_are_told_what_to_do_with_the_start(run, adapted, tmp_path):
    done = run("model", "adapter", adapted, tmp_path / "again.safetensors")
    assert f"condu task import {adapted} TASK --checkpoint" in done.stdout
    result = document(run("model", "adapter", adapted, tmp_path / "more.safetensors", "--json"))
    assert result["size_bytes"] == (tmp_path / "more.safetensors").stat().st_size


def test_a_model_tuned_in_full_has_no_adapter_to_export(run, tmp_path):
    refused = run("export", "animals", "pets", tmp_path / "x.safetensors", "--adapter")
    assert refused.exit_code == ExitCode.REFUSED
    assert "tuned in full" in refused.stderr
    assert run("model", "adapter", "animals", tmp_path / "x.safetensors").exit_code == ExitCode.REFUSED


def test_a_rank_without_lora_is_refused_with_the_remedy(run):
    refused = run("model", "create", "odd", "--base", "tiny", "--lora-rank", 4)
    assert refused.exit_code == ExitCode.REFUSED
    assert "set tuning to lora" in refused.stderr
