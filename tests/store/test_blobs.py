"""One behavioural suite for every place that keeps blobs."""

import hashlib
import os
import resource
import threading
from dataclasses import replace

import pytest

from store.blobs import FileBlobs, MemoryBlobs, open_blobs
from store.errors import BlobsUnavailableError, CorruptBlobError, NotFoundError


@pytest.fixture(params=["files", "memory", "objects", "objects without cache"])
def blobs(request, tmp_path):
    if request.param == "files":
        return FileBlobs(tmp_path / "blobs")
    if request.param == "memory":
        return MemoryBlobs()
    place = request.getfixturevalue("s3_place")
    return open_blobs(replace(place, cache_bytes=2**30 if request.param == "objects" else 0))


@pytest.fixture
def files(tmp_path):
    return FileBlobs(tmp_path / "blobs")


def test_a_blob_is_named_by_the_sha256_of_its_bytes(blobs):
    blob = blobs.put(b"hello")
    assert blob.digest == hashlib.sha256(b"hello").hexdigest()
    assert (blob.size_bytes, bytes(blobs.read(blob.digest))) == (5, b"hello")


def test_the_same_bytes_twice_are_kept_once(blobs):
    assert blobs.put(b"same") == blobs.put(b"same")
    assert len(list(blobs.list())) == 1


def test_any_range_of_a_blob_can_be_read(blobs):
    digest = blobs.put(b"0123456789").digest
    assert bytes(blobs.read(digest, 3, 4)) == b"3456"
    assert bytes(blobs.read(digest, 8)) == b"89"
    assert bytes(blobs.read(digest, 4, 0)) == b""


def test_a_range_past_the_end_is_named_as_damage(blobs):
    digest = blobs.put(b"0123456789").digest
    with pytest.raises(CorruptBlobError, match="at least 12 bytes"):
        blobs.read(digest, 8, 4)


def test_what_a_reader_does_to_his_bytes_does_not_reach_the_blob(blobs):
    digest = blobs.put(b"0123").digest
    blobs.read(digest)[:] = b"xxxx"
    assert bytes(blobs.read(digest)) == b"0123"


def test_an_uncommitted_blob_leaves_nothing_behind(blobs):
    with blobs.writer() as writer:
        writer.write(b"half")
    assert list(blobs.list()) == []
    assert blobs.discard_unfinished(older_than_s=0.0, delete=False) == 0


def test_an_empty_blob_is_a_blob(blobs):
    blob = blobs.put(b"")
    assert blobs.contains(blob.digest)
    assert bytes(blobs.read(blob.digest)) == b""


def test_deleting_frees_the_bytes_and_deleting_again_frees_none(blobs):
    digest = blobs.put(b"12345").digest
    assert (blobs.delete(digest), blobs.delete(digest)) == (5, 0)
    assert not blobs.contains(digest)
    with pytest.raises(NotFoundError, match=digest):
        blobs.read(digest)


def test_a_young_blob_survives_a_delete_that_spares_the_young(blobs):
    digest = blobs.put(b"12345").digest
    assert blobs.delete(digest, unless_younger_than_s=60.0) == 0
    assert bytes(blobs.read(digest)) == b"12345"


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "ABC", "0" * 63, "0" * 65, "0" * 62 + "/a"])
def test_a_name_that_is_no_digest_never_becomes_a_path(blobs, name):
    for operation in (blobs.read, blobs.size_bytes, blobs.contains, blobs.delete):
        with pytest.raises(NotFoundError, match="not a digest"):
            operation(name)


def test_a_copy_of_a_blob_has_its_bytes(blobs, tmp_path):
    digest = blobs.put(b"copy me").digest
    blobs.copy_to(digest, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"copy me"
    with pytest.raises(NotFoundError):
        blobs.copy_to("0" * 64, tmp_path / "none")


def test_a_file_becomes_a_blob_and_stays(blobs, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 5_000_000)
    assert blobs.put_file(tmp_path / "file").size_bytes == 5_000_000
    assert (tmp_path / "file").exists()


def test_blob_files_cannot_be_written_to(files):
    path = files.path(files.put(b"fixed").digest)
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_behind(files):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1000, hard)
    )  # a write past it fails as on a full disk (EFBIG, no signal in python)
    try:
        with pytest.raises(BlobsUnavailableError, match="free disk space"):
            files.put(b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(files.list()) == []
    assert list((files.folder / "incoming").iterdir()) == []


def test_a_write_that_died_is_counted_and_removed_after_its_grace_period(files):
    (files.folder / "incoming" / "tmp123").write_bytes(b"x" * 100)
    assert files.discard_unfinished(older_than_s=60.0, delete=True) == 0
    assert files.discard_unfinished(older_than_s=0.0, delete=False) == 100
    assert files.discard_unfinished(older_than_s=0.0, delete=True) == 100
    assert files.discard_unfinished(older_than_s=0.0, delete=True) == 0


def test_writing_again_makes_an_old_blob_young(files):
    digest = files.put(b"old").digest
    os.utime(files.path(digest), (1, 1))
    files.put(b"old")
    assert next(files.list()).age_s < 60


def test_writers_and_sweepers_that_race_over_one_blob_never_lose_a_committed_one(files):
    """Whoever has just committed finds the blob, although a sweeper with a grace period keeps deleting it."""
    content, lost, stop = b"contended" * 100, [], threading.Event()
    digest = hashlib.sha256(content).hexdigest()

    def sweep():
        while not stop.is_set():
            if files.contains(digest):
                try:
                    os.utime(files.path(digest), (1, 1))  # it looks old for a moment
                except (FileNotFoundError, NotFoundError):
                    continue
                files.delete(digest, unless_younger_than_s=30.0)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        lost.extend(files.put(content).digest != digest for _ in range(300))
    finally:
        stop.set()
        sweeper.join()
    files.put(content)
    assert not any(lost)
    assert bytes(files.read(digest)) == content


def test_a_write_whose_file_was_removed_is_refused_instead_of_going_on_in_the_middle(files):
    with files.writer() as writer:
        writer.write(b"the beginning")
        for path in (files.folder / "incoming").iterdir():
            path.unlink()
        with pytest.raises(BlobsUnavailableError):
            writer.write(b" and the end")
    assert list(files.list()) == []


def test_two_sweepers_that_remove_one_blob_free_its_bytes_once(files):
    digest = files.put(b"x" * 1000).digest
    freed, ready = [], threading.Barrier(2)

    def delete():
        ready.wait()
        freed.append(files.delete(digest))

    threads = [threading.Thread(target=delete) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(freed) == [0, 1000]
