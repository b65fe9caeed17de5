"""What the benchmarks stand on: times in turns, checks that can fail, made deltas that are what they say."""

import subprocess

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bench import machine, page_cache, textbook
from bench.allocator import freed_memory_kept
from bench.checks import check_equal, check_fusion, relative_l2
from bench.counting import CountingBlobs
from bench.memory import resident
from bench.packed import PackedModel, learned
from bench.steps import Steps
from bench.synthetic import FULL_SIZE, Recipe, SyntheticModel, clip_space, write_flat
from bench.timing import Timing, interleaved, num_runs, ratio
from cli.main import app
from store.blobs.memory import MemoryBlobs
from store.safefile import SafeFile


def test_implementations_take_turns_and_the_warm_up_does_not_count():
    calls, steps = [], []
    progress = Steps(lambda done, total: steps.append((done, total)))
    progress.plan(num_runs(2, repeats=3))

    timings = interleaved(
        {"ours": lambda: calls.append("ours"), "theirs": lambda: calls.append("theirs")},
        repeats=3,
        steps=progress,
        before={"theirs": lambda: calls.append("before theirs")},
    )

    assert calls == ["ours", "before theirs", "theirs"] * 4
    assert [len(timing.times_s) for timing in timings.values()] == [3, 3]
    assert steps[-1] == (8, 8)


def test_a_ratio_is_that_of_the_medians():
    assert ratio(Timing((4.0, 1.0, 2.0)), Timing((8.0, 1.0, 100.0))) == 0.25


@pytest.fixture(scope="module")
def tasks():
    return SyntheticModel(clip_space(60_000))


@pytest.fixture(scope="module")
def fused(tasks):
    """A model of two tasks, a third delta, and the fusion of it by the store and by the textbook."""
    before, delta = learned(tasks.space, [tasks.delta(0), tasks.delta(1)]), tasks.delta(2)
    theirs = textbook.fuse(before.textbook(), tasks.space.views(delta))
    return before, delta, before.fuse(delta), theirs


def test_the_store_and_the_textbook_fuse_alike(fused):
    before, delta, ours, theirs = fused

    checked = check_fusion(before, delta, ours=ours, textbook=theirs)

    assert checked["largest_rescaler_error"] < 1e-6


def test_another_sign_somewhere_is_found(fused):
    before, delta, ours, theirs = fused
    name = max(theirs.unified, key=lambda tensor: theirs.unified[tensor].numel())
    wrong = {**theirs.unified, name: -theirs.unified[name]}

    with pytest.raises(AssertionError, match="no vote is tied"):
        check_fusion(
            before, delta, ours=ours, textbook=textbook.TextbookModel(wrong, theirs.masks, theirs.rescalers)
        )


def test_another_rescaler_is_found(fused):
    before, delta, ours, theirs = fused
    wrong = [*theirs.rescalers[:-1], theirs.rescalers[-1] * 1.001]

    with pytest.raises(AssertionError, match="lambda 2 differs"):
        check_fusion(
            before, delta, ours=ours, textbook=textbook.TextbookModel(theirs.unified, theirs.masks, wrong)
        )


def test_other_weights_are_found():
    ours = torch.tensor([1.0, -0.0])

    with pytest.raises(AssertionError, match="a peer rebuilt other weights"):
        check_equal("a peer", ours, torch.tensor([1.0, 0.0]))
    assert relative_l2(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])) == 0.2


def test_the_textbook_rebuilds_the_first_task_exactly(tasks):
    model = textbook.fuse(textbook.TextbookModel(), tasks.space.views(tasks.delta(0)))

    rebuilt = textbook.rebuild(tasks.space.views(tasks.base), model, 0)

    assert model.rescalers == [1.0]
    for name, view in tasks.space.views(tasks.base + tasks.delta(0)).items():
        assert torch.equal(rebuilt[name], view)


def test_a_model_without_tasks_learns_its_first(tasks):
    model = PackedModel.empty(tasks.space).fuse(tasks.delta(0))

    assert np.array_equal(model.unified, tasks.delta(0).numpy())


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tasks):
    again = SyntheticModel(tasks.space)
    other = SyntheticModel(tasks.space, Recipe(seed=1))

    assert torch.equal(tasks.checkpoint(3), again.checkpoint(3))
    assert not torch.equal(tasks.base, other.base)
    assert not torch.equal(tasks.checkpoint(3), tasks.checkpoint(4))


def test_full_size_is_the_exact_layout_and_other_sizes_come_near():
    assert clip_space().num_parameters == FULL_SIZE
    assert abs(clip_space(1_000_000).num_parameters / 1_000_000 - 1) < 0.01


def test_what_no_prompt_reaches_has_exact_zeros(tasks):
    space = clip_space(400_000)
    views = space.views(SyntheticModel(space).delta(0))

    assert not views["logit_scale"].any()
    assert not views["positional_embedding"][Recipe().positions :].any()
    assert (views["token_embedding.weight"] != 0).any(dim=1).float().mean() < 0.02
    assert (views["visual.conv1.weight"] != 0).float().mean() > 0.99


def test_two_tasks_are_correlated_as_the_recipe_says():
    space = clip_space(400_000)
    model = SyntheticModel(space)
    name = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    pair = torch.stack([space.views(model.delta(task))[name].reshape(-1) for task in range(2)])

    assert abs(float(torch.corrcoef(pair)[0, 1]) - Recipe().correlation) < 0.05


def test_a_written_checkpoint_is_read_back_as_it_was(tasks, tmp_path):
    write_flat(tmp_path / "flat.safetensors", tasks.space, tasks.base)

    read = SafeFile(tmp_path / "flat.safetensors").tensors()

    assert torch.equal(tasks.space.flatten(read), tasks.base)


def test_a_file_just_read_is_in_memory_and_dropping_it_is_harmless(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    path.read_bytes()

    assert page_cache.resident_share(path) == 1.0

    page_cache.drop(path)

    assert 0.0 <= page_cache.resident_share(path) <= 1.0  # a file system in memory keeps it
    assert path.read_bytes() == b"x" * 100_000


def test_counting_blobs_count_and_pass_everything_on(tmp_path):
    blobs = CountingBlobs(MemoryBlobs())
    blob = blobs.put(b"twelve bytes")
    blobs.read(blob.digest, 0, 6)

    assert (blobs.bytes_written, blobs.blobs_written, blobs.bytes_read) == (12, 1, 6)
    assert blobs.contains(blob.digest)
    assert blobs.size_bytes(blob.digest) == 12
    assert [stored.digest for stored in blobs.list()] == [blob.digest]
    assert blobs.discard_unfinished(older_than_s=0.0, delete=True) == 0
    blobs.copy_to(blob.digest, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"twelve bytes"
    assert blobs.delete(blob.digest) == 12

    blobs.reset()

    assert (blobs.bytes_written, blobs.bytes_read) == (0, 0)


def test_memory_that_is_kept_is_given_back_at_the_end():
    with freed_memory_kept() as is_kept:
        for _ in range(2):
            torch.zeros(20_000_000)
        kept = resident()["RssAnon"]

    assert is_kept
    assert kept - resident()["RssAnon"] > 40_000_000


def test_without_glibc_nothing_is_kept(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _name: object())

    with freed_memory_kept() as is_kept:
        assert not is_kept


def test_a_machine_without_git_is_described_all_the_same(monkeypatch):
    def no_git(*_args, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", no_git)

    described = machine.describe_machine()

    assert described["commit"] is None
    assert described["dirty"] is None
    assert described["versions"]["torch"]


def test_a_benchmark_that_computed_something_else_ends_with_a_message(monkeypatch):
    def wrong(*_args, **_options):
        raise AssertionError("rebuild rebuilt other weights")

    monkeypatch.setattr("bench.documents.run", wrong)

    result = CliRunner().invoke(app, ["bench", "rebuild", "--quick"])

    assert result.exit_code == 1
    assert "rebuilt other weights" in result.stderr
