"""Fusions and rebuilds of several chunks at a time: the bytes of one at a time, and errors that end them."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from store.blobs import FileBlobs
from store.checkpoints import CheckpointStore
from store.errors import BlobsUnavailableError, CorruptBlobError
from store.parallel import ordered_map
from store.parameters import CHUNK_ELEMENTS, ExpectedTensor
from store.safefile import write_safetensors
from tests.store.small import learn

SHAPE = (3 * CHUNK_ELEMENTS // 1024 + 100, 1024)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def states():
    """A base of four chunks and two fine-tunes of it, a third of whose entries did not change."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(SHAPE, generator=generator)
    changes = [
        torch.randn(SHAPE, generator=generator) * (torch.rand(SHAPE, generator=generator) > 1 / 3)
        for _ in range(2)
    ]
    return [{"weight": base}, *({"weight": base + 0.01 * change} for change in changes)]


def learned(folder, states):
    """A store of the two tasks: (store, base, outcome of the last fusion)."""
    store = CheckpointStore(FileBlobs(folder / "blobs"))
    path = folder / "base.safetensors"
    write_safetensors(path, states[0])
    base = store.load_base(store.save_base(path, {"weight": ExpectedTensor(SHAPE, "parameter")}).digest)
    first = learn(store, base, folder, name="a", tensors=states[1])
    second = learn(store, base, folder, name="b", parent=first.manifest_digest, tensors=states[2])
    return store, base, second


def test_two_threads_write_the_bytes_that_one_writes(tmp_path, states, two_threads):
    (tmp_path / "two").mkdir()
    together = learned(tmp_path / "two", states)[2]
    torch.set_num_threads(1)
    (tmp_path / "one").mkdir()
    assert learned(tmp_path / "one", states)[2].manifest_digest == together.manifest_digest


def test_a_rebuild_with_the_unified_delta_in_memory_equals_one_from_the_store(tmp_path, states, two_threads):
    store, base, outcome = learned(tmp_path, states)
    unified = store.load_unified(base, outcome.manifest)
    out = torch.full_like(base.flat, torch.nan)
    from_memory = store.rebuild(base, outcome.manifest, "a", unified=unified, out=out).flat
    assert from_memory is out
    assert torch.equal(from_memory, store.rebuild(base, outcome.manifest, "a").flat)
    owned = from_memory != base.flat
    assert 0.3 < owned.float().mean() < 0.7
    closeness = torch.cosine_similarity(
        from_memory - base.flat, states[1]["weight"].view(-1) - base.flat, dim=0
    )
    assert closeness > 0.8


def test_the_unified_delta_of_another_revision_is_refused(tmp_path, states):
    store, base, outcome = learned(tmp_path, states)
    unified = store.load_unified(base, store.manifest(outcome.manifest.parent))
    with pytest.raises(CorruptBlobError, match="unified delta of the revision"):
        store.rebuild(base, outcome.manifest, "a", unified=unified)


def test_a_damaged_chunk_ends_a_fusion_with_its_name_and_leaves_nothing_behind(tmp_path, states, two_threads):
    store, base, outcome = learned(tmp_path, states)
    path = store.blobs.path(outcome.manifest.task("a").mask)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1  # in the second chunk of four
    path.chmod(0o600)
    path.write_bytes(content)
    before = {blob.digest for blob in store.blobs.list()}
    with pytest.raises(CorruptBlobError, match=r"chunk 1 of mask"):
        learn(store, base, tmp_path, name="c", parent=outcome.manifest_digest, tensors=states[2])
    after = {blob.digest for blob in store.blobs.list()}
    assert len(after - before) == 1  # the prototypes, which were there before the fusion
    assert not list((tmp_path / "blobs" / "incoming").iterdir())


class FullAfter(FileBlobs):
    """Files on a disk that is full after so many bytes."""

    room = 0

    def writer(self):
        writer, append = super().writer(), None

        def refuse_when_full(piece):
            self.room -= memoryview(piece).nbytes
            if self.room < 0:
                raise BlobsUnavailableError("the disk is full; free disk space")
            append(piece)

        append, writer._append = writer._append, refuse_when_full  # noqa: SLF001 - beneath the hashing
        return writer


def test_a_disk_that_fills_up_ends_a_fusion_and_all_its_threads(tmp_path, states, two_threads):
    store, base, outcome = learned(tmp_path, states)
    full = CheckpointStore(FullAfter(tmp_path / "blobs"))
    for room in (0, 100_000, 6_000_000):
        full.blobs.room = room + 12  # the prototypes go first
        with pytest.raises(BlobsUnavailableError, match="disk is full"):
            learn(full, base, tmp_path, name="c", parent=outcome.manifest_digest, tensors=states[2])
    assert not list((tmp_path / "blobs" / "incoming").iterdir())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store")]
    again = learn(store, base, tmp_path, name="c", parent=outcome.manifest_digest, tensors=states[2])
    assert len(again.manifest.tasks) == 3


def test_an_expert_on_another_device_than_the_cpu_has_its_weights_there(tmp_path, states):
    """The meta device stands in for one: shapes and placement, no values."""
    store, base, outcome = learned(tmp_path, states)
    elsewhere = replace(base, flat=base.flat.to("meta"))
    unified = store.load_unified(elsewhere, outcome.manifest)
    assert unified.flat.device.type == "meta"
    rebuilt = store.rebuild(elsewhere, outcome.manifest, "a", unified=unified)
    assert (rebuilt.flat.device.type, rebuilt.flat.shape) == ("meta", base.flat.shape)


def test_results_come_in_order_with_few_of_them_waiting(two_threads):
    begun = []

    def work(item):
        begun.append(item)
        return item * item

    results = ordered_map(work, range(100))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(begun) <= 3 + 2 + 2
    assert list(results) == [n * n for n in range(3, 100)]


def test_the_first_error_in_order_is_the_one_raised(two_threads):
    def fail(item):
        if item in {5, 6}:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 5"):
        list(ordered_map(fail, range(1000)))


def test_kernels_are_compiled_once_and_then_come_from_the_cache(tmp_path):
    program = (
        "from store.fusion.kernels import fold_words, rebuild_words\n"
        "modules = vars(fold_words) | vars(rebuild_words)\n"
        "kernels = [one for one in modules.values() if hasattr(one, 'signatures')]\n"
        "print(len(kernels), *(sum(one.stats.cache_misses.values()) for one in kernels))"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert [int(word) for word in outputs[0]] == [7, *[1] * 7]
    assert [int(word) for word in outputs[1]] == [7, *[0] * 7]
    assert np.all([path.stat().st_size for path in tmp_path.rglob("*.nbc")])
