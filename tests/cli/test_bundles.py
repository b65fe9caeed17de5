"""`condu model export` and `condu model import` against the real api."""

import json

import pytest

from cli.client import Client
from cli.downloads import Partial
from cli.exit_codes import ExitCode
from tests.cli.documents import document


@pytest.fixture
def target(tmp_path):
    return tmp_path / "animals.condu"


@pytest.fixture
def copy_name(service, request):
    """A name for an imported model, which is gone after the test."""
    name = f"copy-{abs(hash(request.node.name)) % 10**8}"
    yield name
    with Client(service.url) as client:
        if name in {model.name for model in client.list_models()}:
            client.remove_model(name)


def test_a_model_is_exported_and_imported_under_another_name(run, target, copy_name, image):
    exported = document(run("model", "export", "animals", target, "--json"))
    imported = document(run("model", "import", target, "--name", copy_name, "--json"))

    assert exported["size_bytes"] == target.stat().st_size
    assert imported["bundle"] == exported["digest"]
    assert (imported["name"], imported["tasks"]) == (copy_name, ["pets", "digits"])
    assert imported["base_is_new"] is False
    ours, copied = (
        document(run("classify", name, image, "--json"))["results"] for name in ("animals", copy_name)
    )
    assert ours == copied


def test_people_are_told_where_the_bundle_is_and_what_became_of_it(run, target, copy_name):
    exported = run("model", "export", "animals", target)
    imported = run("model", "import", target, "--name", copy_name)

    assert f"condu model import {target.name}" in exported.stdout
    assert "MB, bundle " in exported.stdout
    assert f"imported the model {copy_name} on the base tiny, which was here already" in imported.stdout
    assert "pets, digits" in imported.stdout
    assert imported.stderr.count("the service hashes and checks") == 1


def test_a_bundle_without_its_base_is_smaller(run, target, tmp_path, copy_name):
    whole = document(run("model", "export", "animals", target, "--json"))
    lean = document(run("model", "export", "animals", tmp_path / "lean", "--without-base", "--json"))

    assert lean["size_bytes"] < whole["size_bytes"] / 2
    assert (
        document(run("model", "import", tmp_path / "lean", "--name", copy_name, "--json"))["base"] == "tiny"
    )


def test_an_earlier_revision_is_exported(run, target, copy_name):
    run("model", "export", "animals", target, "--revision", 1)

    imported = document(run("model", "import", target, "--name", copy_name, "--json"))

    assert imported["tasks"] == ["pets"]


def test_a_broken_export_goes_on_where_it_stopped(run, target):
    done = document(run("model", "export", "animals", target, "--json"))
    content = target.read_bytes()
    target.unlink()
    partial = Partial.beside(target, f'"{done["digest"]}"').path
    partial.write_bytes(content[: len(content) // 2])

    resumed = document(run("model", "export", "animals", target, "--json"))

    assert resumed["resumed_at_bytes"] == len(content) // 2
    assert target.read_bytes() == content
    assert not partial.exists()


def test_a_name_that_is_taken_is_refused_with_the_way_out(run, target):
    run("model", "export", "animals", target)

    result = run("model", "import", target)

    assert result.exit_code == ExitCode.REFUSED
    assert "--name" in result.stderr
    assert "next: condu model list" in result.stderr


def test_a_damaged_bundle_is_refused_with_what_is_wrong(run, target, copy_name):
    run("model", "export", "animals", target)
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)

    result = run("model", "import", target, "--name", copy_name, "--json")

    assert result.exit_code == ExitCode.REFUSED
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "/problems/invalid-bundle"
    assert "have the digest" in error["detail"]


def test_a_bundle_that_is_not_there_is_a_mistake_of_the_command_line(run, target):
    assert run("model", "import", target).exit_code == ExitCode.USAGE


def test_a_model_that_is_not_there_cannot_be_exported(run, target):
    result = run("model", "export", "nobody", target)

    assert result.exit_code == ExitCode.REFUSED
    assert "next: condu model list" in result.stderr
    assert not target.exists()
