"""Corners that only damage, rot and unlucky moments reach."""

import os
import resource
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard

from store.blobs import FileBlobs, MemoryBlobs, StoredBlob
from store.checkpoints import CheckpointStore, NewTask
from store.codecs.bits import MaskReader, MaskWriter, encode_mask
from store.codecs.container import ArtefactWriter
from store.codecs.floats import FloatReader
from store.errors import (
    BlobsUnavailableError,
    CorruptBlobError,
    IncompatibleTensorsError,
    NotFoundError,
    UnsupportedFormatError,
)
from store.experts import BlobSource
from store.fusion import fusion_kind
from store.safefile import write_safetensors
from store.sweep import Roots, sweep
from store.verify import verify
from tests.store.small import fine_tuned, learn, learn_all, save_base


@pytest.fixture
def files(tmp_path):
    return FileBlobs(tmp_path / "blobs")


@pytest.fixture
def store(files):
    return CheckpointStore(files)


@pytest.fixture
def base(store, tmp_path):
    return save_base(store, tmp_path)


def artefact(blobs, kind, header, chunks):
    with blobs.writer() as sink:
        writer = ArtefactWriter(sink, kind=kind, header=header)
        for codec, payload in chunks:
            writer.add(codec, payload)
        writer.finish()
        return BlobSource(blobs, sink.commit().digest)


def test_a_copy_to_another_file_system_is_made_byte_by_byte(files):
    other = Path("/dev/shm")  # noqa: S108 - a second file system that every Linux has
    if other.stat().st_dev == files.folder.stat().st_dev:
        pytest.skip("one file system only")
    target = other / f"condu-test-{os.getpid()}"
    try:
        files.copy_to(files.put(b"far").digest, target)
        assert target.read_bytes() == b"far"
    finally:
        target.unlink(missing_ok=True)


def test_a_storage_that_refuses_is_named_with_what_to_do(files):
    digest = files.put(b"x").digest
    files.path(digest).unlink()
    files.path(digest).mkdir()
    with pytest.raises(BlobsUnavailableError, match=f"read blob {digest}"):
        files.read(digest)
    with pytest.raises(BlobsUnavailableError, match="copy blob"):
        files.copy_to(files.put(b"y").digest, files.folder)
    with pytest.raises(NotFoundError):
        files.size_bytes("0" * 64)


def test_a_blob_that_cannot_get_its_name_is_an_error_and_leaves_nothing(files):
    digest = files.put(b"z").digest
    files.delete(digest)
    files.path(digest).parent.rmdir()
    files.path(digest).parent.write_bytes(b"a file where the folder should be")
    with pytest.raises(BlobsUnavailableError, match="publish blob"):
        files.put(b"z")
    assert files.discard_unfinished(older_than_s=0.0, delete=False) == 0


def test_a_store_whose_folder_vanished_says_so(files):
    (files.folder / "incoming").rmdir()
    with pytest.raises(BlobsUnavailableError, match="start a blob"):
        files.put(b"x")


def test_a_blob_removed_while_others_are_listed_is_passed_over(files):
    digests = sorted(files.put(bytes([i])).digest for i in range(5))
    listing = files.list()
    first = next(listing)
    for digest in digests[1:4]:
        files.path(digest).unlink()
    assert [first.digest, *(blob.digest for blob in listing)] == [digests[0], digests[4]]


def test_a_writer_that_loses_the_name_to_a_sweeper_takes_it_again(files):
    digest = files.put(b"again").digest
    files.path(digest).unlink()
    files.path(digest).symlink_to(files.folder / "nowhere")
    freed = threading.Timer(0.2, files.path(digest).unlink)
    freed.start()
    assert files.put(b"again").digest == digest
    freed.join()
    assert bytes(files.read(digest)) == b"again"


def test_a_file_that_cannot_be_written_whole_is_not_written_at_all(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(BlobsUnavailableError, match="free disk space"):
            write_safetensors(tmp_path / "big", {"x": torch.zeros(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_of_another_length_than_its_place_is_damage():
    blobs = MemoryBlobs()
    mask = {"layout": "l", "bit_count": 800, "bit_order": "little", "chunk_elements": 2**20}
    with pytest.raises(CorruptBlobError, match="100 bytes"):
        MaskReader(artefact(blobs, "mask", mask, [("raw", b"short")])).chunk(0)
    unified = {"layout": "l", "element_count": 800, "dtype": "float32", "chunk_elements": 2**20}
    with pytest.raises(CorruptBlobError, match="part 0 of chunk 0"):
        FloatReader(artefact(blobs, "unified", unified, [("raw", b"shrt")] * 3)).chunk(0)


def test_a_frame_that_is_none_or_claims_another_length_is_damage_found_before_it_is_decoded():
    blobs = MemoryBlobs()
    mask = {"layout": "l", "bit_count": 2**20, "bit_order": "little", "chunk_elements": 2**20}
    bomb = zstandard.ZstdCompressor().compress(bytes(10**8))
    for payload, found in ((bomb, "a frame of 100000000"), (b"no frame", "frame")):
        with pytest.raises(CorruptBlobError, match=found):
            MaskReader(artefact(blobs, "mask", mask, [("zstd", payload)])).chunk(0)
    whole = zstandard.ZstdCompressor().compress(bytes(range(256)) * 512)
    with pytest.raises(CorruptBlobError, match="zstd frame"):
        MaskReader(artefact(blobs, "mask", mask, [("zstd", whole[:12])])).chunk(0)


def test_an_unknown_codec_is_refused_with_the_remedy():
    mask = {"layout": "l", "bit_count": 800, "bit_order": "little", "chunk_elements": 2**20}
    with pytest.raises(UnsupportedFormatError, match="coded as 'lzma'; upgrade condu"):
        MaskReader(artefact(MemoryBlobs(), "mask", mask, [("lzma", b"")])).chunk(0)


def test_a_unified_delta_in_an_unknown_dtype_is_refused_with_the_remedy():
    header = {"layout": "l", "element_count": 1, "dtype": "float8", "chunk_elements": 2**20}
    with pytest.raises(UnsupportedFormatError, match="upgrade condu"):
        FloatReader(artefact(MemoryBlobs(), "unified", header, []))


def test_a_mask_of_another_length_than_the_space_is_refused(store, base, tmp_path):
    outcome = learn(store, base, tmp_path, name="a")
    with store.blobs.writer() as sink:
        writer = MaskWriter(sink, layout=base.space.digest, num_bits=8)
        writer.add(*encode_mask(np.ones(1, dtype=np.uint8)))
        writer.finish()
        short = sink.commit().digest
    manifest = replace(outcome.manifest, tasks=(replace(outcome.manifest.tasks[0], mask=short),))
    with pytest.raises(CorruptBlobError, match="length of mask"):
        store.rebuild(base, manifest, "a")


def test_a_revision_is_rebuilt_only_on_its_own_base_and_only_with_a_unified_delta(store, base, tmp_path):
    outcome = learn(store, base, tmp_path, name="a")
    with pytest.raises(CorruptBlobError, match="base of the revision"):
        store.rebuild(base, replace(outcome.manifest, base="0" * 64), "a")
    with pytest.raises(NotFoundError, match="learn one first"):
        store.rebuild(base, replace(outcome.manifest, unified=None), "a")


def test_an_unknown_fusion_kind_is_refused_with_the_remedy():
    with pytest.raises(UnsupportedFormatError, match="knows condu"):
        fusion_kind("alchemy")


def test_flattening_names_the_tensor_that_does_not_fit(base):
    with pytest.raises(IncompatibleTensorsError, match="'logit_scale': expected shape"):
        base.space.flatten({})


def test_a_checkpoints_header_is_checked_without_its_values(store, base, tmp_path):
    tensors = fine_tuned(1)
    write_safetensors(tmp_path / "good", tensors)
    store.check_checkpoint(base.space, tmp_path / "good")
    write_safetensors(tmp_path / "bad", {**tensors, "more": torch.ones(1)})
    with pytest.raises(IncompatibleTensorsError, match="'more'"):
        store.check_checkpoint(base.space, tmp_path / "bad")


def test_progress_of_a_fusion_reaches_its_end(store, base, tmp_path):
    write_safetensors(tmp_path / "x", fine_tuned(1))
    seen = []
    outcome = learn(store, base, tmp_path, name="a")
    store.fold(
        base,
        parent=outcome.manifest_digest,
        options=outcome.manifest.options,
        new_task=replace(_as_new(outcome), name="b"),
        checkpoint=tmp_path / "x",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 1)]


def _as_new(outcome):
    task = outcome.manifest.tasks[0]
    return NewTask(task.name, task.classes, task.templates, task.prototypes)


def test_sizes_add_up_to_the_blobs_a_revision_names(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    named = {*outcome.manifest.named_blobs(), base.manifest.weights}
    assert store.sizes(outcome.manifest).total == sum(store.blobs.size_bytes(digest) for digest in named)


def test_verify_names_a_base_that_is_gone_and_skips_tasks_that_were_dropped(store, base, tmp_path):
    outcome = learn_all(store, base, tmp_path, ["a", "b"])
    dropped, _ = store.drop_task(outcome.manifest_digest, "b")
    assert [step for step in verify(store, manifests=[dropped]) if step.problem] == []
    store.blobs.delete(base.digest)
    found = [step.problem for step in verify(store, manifests=[], bases=[base.digest]) if step.problem]
    assert any(problem.startswith(f"base {base.digest}") for problem in found)


class BlobsSeenAMomentAgo(MemoryBlobs):
    """Lists what a slow sweeper saw: ages from before somebody wrote the same bytes again."""

    def list(self):
        for blob in super().list():
            yield StoredBlob(blob.digest, blob.size_bytes, age_s=1e9)


def test_a_blob_written_again_while_a_sweep_runs_is_neither_removed_nor_counted():
    blobs = BlobsSeenAMomentAgo()
    blobs.put(b"young again")
    report = sweep(CheckpointStore(blobs), Roots(manifests=[]), grace_s=60.0, delete=True)
    assert (report.removed, report.bytes_freed) == ((), 0)
    assert len(list(blobs.list())) == 1
