"""What only an object storage can do to blobs, through a server that misbehaves; and the copies near by."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from store.blobs import open_blobs
from store.blobs.cache import BlobCache
from store.blobs.objects import PART_BYTES
from store.checkpoints import CheckpointStore
from store.errors import (
    BlobsUnavailableError,
    CorruptBlobError,
    NotFoundError,
    StorageUnreachableError,
    UnsuitableStorageError,
)
from store.verify import verify
from tests.storage_proxy import CONDITIONS, RANGES, StorageProxy

LARGE = os.urandom(PART_BYTES + 12_345)


@pytest.fixture
def proxy(s3_place):
    opened = StorageProxy(s3_place.endpoint)
    yield opened
    opened.close()


@pytest.fixture
def place(s3_place, proxy):
    """The storage, seen through the proxy."""
    return replace(s3_place, endpoint=proxy.endpoint)


@pytest.fixture
def blobs(place):
    return open_blobs(place)


@pytest.fixture
def uncached(place):
    return open_blobs(replace(place, cache_bytes=0))


def objects_of(place):
    """The names of all objects under the place's prefix, as another client sees them."""
    from tests import servers  # noqa: PLC0415

    prefix = place.url.partition("//")[2].partition("/")[2]
    answer = servers.s3_client().list_objects_v2(Bucket=servers.BUCKET, Prefix=prefix)
    return [entry["Key"].removeprefix(f"{prefix}/") for entry in answer.get("Contents", [])]


def copies_in(folder):
    return [path for path in folder.glob("[0-9a-f][0-9a-f]/*") if path.is_file()]


@pytest.mark.parametrize(
    ("forgotten", "fault"),
    [
        (CONDITIONS, "overwrites objects although asked not to"),
        (RANGES, "ignores the range that is asked for"),
    ],
)
def test_a_storage_that_ignores_what_the_store_depends_on_is_refused_at_start(place, proxy, forgotten, fault):
    proxy.weather.forgotten_headers = forgotten
    with pytest.raises(UnsuitableStorageError, match=fault):
        open_blobs(place)
    assert objects_of(place) == []


def test_a_storage_that_does_not_list_what_was_written_is_refused(place, proxy):
    proxy.weather.lists_nothing = True
    with pytest.raises(UnsuitableStorageError, match="does not list"):
        open_blobs(place)


def test_a_storage_that_fails_while_it_is_tried_out_is_not_called_unsuitable(place, proxy, monkeypatch):
    monkeypatch.setattr("store.blobs.objects._PATIENCE_S", 0.0)
    proxy.weather.refused_status, proxy.weather.refused_methods = 400, frozenset({"GET"})
    with pytest.raises(StorageUnreachableError):
        open_blobs(place)


def test_without_keys_and_endpoint_the_usual_variables_are_used(place, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": place.endpoint,
        "AWS_ACCESS_KEY_ID": place.access_key,
        "AWS_SECRET_ACCESS_KEY": place.secret_key,
    }.items():
        monkeypatch.setenv(name, value)
    blobs = open_blobs(replace(place, endpoint=None, access_key=None, secret_key=None))
    assert bytes(blobs.read(blobs.put(b"by the environment").digest)) == b"by the environment"


def test_a_place_that_is_a_folder_has_files_and_one_that_is_neither_is_refused(place, tmp_path):
    blobs = open_blobs(replace(place, url=(tmp_path / "a folder").as_uri()))
    assert blobs.put(b"x").digest in {path.name for path in (tmp_path / "a folder").rglob("*")}
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        open_blobs(replace(place, url="ftp://bucket/prefix"))


def test_what_others_put_into_the_bucket_is_no_blob(blobs, place):
    from tests import servers  # noqa: PLC0415

    digest = blobs.put(b"ours").digest
    prefix = place.url.partition("//")[2].partition("/")[2]
    servers.s3_client().put_object(Bucket=servers.BUCKET, Key=f"{prefix}/notes.txt", Body=b"theirs")
    assert [blob.digest for blob in blobs.list()] == [digest]


def test_trying_a_storage_out_leaves_nothing_in_it(place):
    open_blobs(place)
    assert objects_of(place) == []


def test_a_blob_lies_under_the_first_two_digits_of_its_digest(blobs, place):
    digest = blobs.put(b"hello").digest
    assert objects_of(place) == [f"{digest[:2]}/{digest}"]


def test_a_bucket_that_is_not_there_is_named_with_the_remedy(place):
    with pytest.raises(StorageUnreachableError, match="create the bucket"):
        open_blobs(replace(place, url="s3://nobody-made-this/x"))


def test_refused_keys_are_named_and_never_shown(place, proxy):
    proxy.weather.refused_status = 403
    with pytest.raises(StorageUnreachableError, match="CONDU_OBJECTS_ACCESS_KEY") as caught:
        open_blobs(place)
    assert place.secret_key not in str(caught.value)
    assert place.secret_key not in repr(place)


def test_a_large_blob_goes_in_parts_and_comes_back_whole(blobs, uncached):
    digest = blobs.put(LARGE).digest
    assert bytes(blobs.read(digest)) == LARGE
    assert bytes(uncached.read(digest)) == LARGE
    assert bytes(uncached.read(digest, PART_BYTES - 3, 7)) == LARGE[PART_BYTES - 3 : PART_BYTES + 4]
    assert blobs.put(LARGE).digest == digest


@pytest.mark.parametrize("weather", [{"fail_every": 5}, {"cut_every": 3}, {"delay_s": 0.05}])
def test_a_storage_that_fails_is_slow_or_cuts_answers_off_is_asked_again(blobs, uncached, proxy, weather):
    for name, value in weather.items():
        setattr(proxy.weather, name, value)
    digests = {blobs.put(f"blob {number}".encode()).digest: number for number in range(12)}
    for digest, number in digests.items():
        assert bytes(uncached.read(digest)) == f"blob {number}".encode()
    assert {blob.digest for blob in blobs.list()} == digests.keys()
    assert sum(blobs.delete(digest) > 0 for digest in digests) == 12


def test_a_storage_that_is_gone_is_an_error_that_says_so_and_what_is_near_is_still_read(
    blobs, proxy, monkeypatch
):
    monkeypatch.setattr("store.blobs.objects._PATIENCE_S", 0.0)
    near, far = blobs.put(b"near").digest, hashlib.sha256(b"far").hexdigest()
    proxy.weather.refused_status = 500
    assert bytes(blobs.read(near)) == b"near"
    with pytest.raises(StorageUnreachableError, match="bring it back"):
        blobs.read(far)


def test_what_was_changed_in_the_storage_is_not_taken_in(blobs, place):
    from tests import servers  # noqa: PLC0415

    digest = blobs.put(b"as it was written").digest
    for copy in copies_in(place.cache_folder):
        copy.unlink()
    prefix = place.url.partition("//")[2].partition("/")[2]
    servers.s3_client().put_object(
        Bucket=servers.BUCKET, Key=f"{prefix}/{digest[:2]}/{digest}", Body=b"something else..."
    )
    with pytest.raises(CorruptBlobError, match=digest):
        blobs.read(digest)
    assert copies_in(place.cache_folder) == []


def test_a_verification_reads_what_the_storage_has_and_not_the_copy(blobs, place):
    from tests import servers  # noqa: PLC0415

    digest = blobs.put(b"as it was written").digest
    prefix = place.url.partition("//")[2].partition("/")[2]
    name = f"{prefix}/{digest[:2]}/{digest}"
    servers.s3_client().put_object(Bucket=servers.BUCKET, Key=name, Body=b"rotten")
    assert bytes(blobs.read(digest)) == b"as it was written"
    steps = list(verify(CheckpointStore(blobs), manifests=(), others=[digest]))
    assert any(step.problem and digest in step.problem for step in steps)


def test_a_copy_that_was_damaged_on_the_disk_is_dropped_and_fetched_anew(blobs, place):
    digest = blobs.put(b"as it was written").digest
    [copy] = copies_in(place.cache_folder)
    copy.chmod(0o644)
    copy.write_bytes(b"As it was written")
    assert bytes(open_blobs(place).read(digest)) == b"as it was written"


def test_what_is_read_again_costs_no_request(blobs, proxy):
    digest = blobs.put(b"hot").digest
    proxy.weather.requests.clear()
    assert bytes(blobs.read(digest, 1, 2)) == b"ot"
    assert blobs.size_bytes(digest) == 3
    assert proxy.weather.requests == []


def test_copies_stay_within_their_bound_and_the_least_recently_used_go_first(place):
    blobs = open_blobs(replace(place, cache_bytes=2500))
    digests = [blobs.put(bytes([number]) * 1000).digest for number in range(2)]
    for age, digest in ((2000, digests[1]), (1000, digests[0])):
        [copy] = [path for path in copies_in(place.cache_folder) if path.name.startswith(digest)]
        os.utime(copy, (time.time() - age, time.time() - age))
    newest = blobs.put(b"x" * 1000).digest
    assert {path.name.partition(".")[0] for path in copies_in(place.cache_folder)} == {digests[0], newest}
    assert bytes(blobs.read(digests[1])) == bytes([1]) * 1000  # fetched again


def test_a_blob_larger_than_the_bound_is_read_without_a_copy(place):
    blobs = open_blobs(replace(place, cache_bytes=100))
    digest = blobs.put(b"x" * 1000).digest
    assert bytes(blobs.read(digest)) == b"x" * 1000
    blobs.copy_to(digest, place.cache_folder / "copy")
    assert (place.cache_folder / "copy").read_bytes() == b"x" * 1000
    assert copies_in(place.cache_folder) == []


def test_of_many_who_miss_a_blob_one_fetches_it(place, proxy):
    digest = open_blobs(place).put(b"wanted by all").digest
    readers = [open_blobs(replace(place, cache_folder=place.cache_folder / "shared")) for _ in range(6)]
    proxy.weather.requests.clear()
    proxy.weather.delay_s = 0.05
    threads = [threading.Thread(target=reader.read, args=(digest,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(request.startswith("GET") for request in proxy.weather.requests) == 1


def test_a_copy_that_another_process_dropped_is_fetched_again(blobs, place):
    digest = blobs.put(b"here and gone").digest
    assert bytes(blobs.read(digest)) == b"here and gone"
    for copy in copies_in(place.cache_folder):
        copy.unlink()
    assert bytes(blobs.read(digest)) == b"here and gone"


def test_a_full_disk_near_by_does_not_keep_the_storage_from_being_read(blobs, place):
    digest = blobs.put(b"far away").digest
    for copy in copies_in(place.cache_folder):
        copy.unlink()
    (place.cache_folder / "incoming").rmdir()
    (place.cache_folder / "incoming").touch()  # no file can be made in it
    assert bytes(blobs.read(digest)) == b"far away"
    with pytest.raises(BlobsUnavailableError, match="start a blob"):
        blobs.put(b"another")


FETCH = """
import sys, pathlib
from store.blobs import BlobPlace, open_blobs
url, folder, endpoint, digest = sys.argv[1:]
keys = {"access_key": "a", "secret_key": "b"}
place = BlobPlace(url, pathlib.Path(folder), 2**30, endpoint=endpoint, region="us-east-1", **keys)
blobs = open_blobs(place)
print("open", flush=True)
blobs.read(digest)
"""


def test_a_process_killed_in_the_middle_of_a_download_leaves_no_half_copy_and_no_lock(place, proxy):
    digest = open_blobs(place).put(LARGE).digest
    folder = place.cache_folder.with_name("of-the-killed")
    proxy.weather.requests.clear()
    command = [sys.executable, "-c", FETCH, place.url, str(folder), proxy.endpoint, digest]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "open\n"
        proxy.weather.delay_s = 0.5
        while not any("incoming" in str(path) and path.is_file() for path in folder.rglob("*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    proxy.weather.delay_s = 0.0
    assert copies_in(folder) == []
    survivor = open_blobs(replace(place, cache_folder=folder))
    assert bytes(survivor.read(digest)) == LARGE
    assert survivor.discard_unfinished(older_than_s=60.0, delete=True) == 0
    assert survivor.discard_unfinished(older_than_s=0.0, delete=True) >= 0
    assert list((folder / "incoming").iterdir()) == []


def test_the_age_of_a_blob_is_told_by_the_storages_clock(blobs, monkeypatch):
    """A worker whose own clock is an hour ahead must not take what was just written for old."""
    digest = blobs.put(b"just written").digest
    ahead = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: ahead)
    assert next(blobs.list()).age_s < 60
    assert blobs.delete(digest, unless_younger_than_s=600.0) == 0


def test_a_blob_that_is_there_already_becomes_young_when_it_is_written_again(blobs, place, monkeypatch):
    monkeypatch.setattr("store.blobs.objects._CLOCK_HOLDS_S", 0.0)
    blobs.put(b"twice")
    while next(blobs.list()).age_s < 1.0:
        time.sleep(0.1)
    blobs.put(b"twice")
    assert next(blobs.list()).age_s < 1.0


def test_a_copy_is_made_of_what_is_near_or_fetched_and_never_over_a_file(blobs, place, tmp_path):
    digest = blobs.put(b"copied").digest
    blobs.copy_to(digest, tmp_path / "near")
    [copy] = copies_in(place.cache_folder)
    copy.unlink()
    blobs.copy_to(digest, tmp_path / "fetched")
    assert (tmp_path / "near").read_bytes() == (tmp_path / "fetched").read_bytes() == b"copied"
    with pytest.raises(BlobsUnavailableError, match="copy blob"):
        blobs.copy_to(digest, tmp_path / "near")


def test_a_blob_whose_copy_cannot_be_kept_is_stored_all_the_same(blobs, place):
    digest = hashlib.sha256(b"no room near by").hexdigest()
    (place.cache_folder / digest[:2]).touch()  # no folder can be made there
    assert blobs.put(b"no room near by").digest == digest
    assert blobs.contains(digest)


def test_a_used_copy_is_marked_and_one_that_is_gone_by_then_is_no_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("store.blobs.cache._TOUCH_EVERY_S", 0.0)
    cache, digest = BlobCache(tmp_path, 100), hashlib.sha256(b"x").hexdigest()
    with cache.new_file() as path:
        path.write_bytes(b"x")
        copy = cache.adopt(digest, path)
    os.utime(copy, (1, 1))
    assert cache.find(digest) == copy
    assert copy.stat().st_mtime > 1
    copy.unlink()
    assert cache.find(digest) is None


def test_a_copy_that_cannot_be_read_is_no_copy(tmp_path):
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / digest[:2] / f"{digest}.sum").mkdir(parents=True)
    assert BlobCache(tmp_path, 100).find(digest) is None


def test_a_file_that_never_became_a_copy_is_left_alone_while_it_is_young(tmp_path):
    cache = BlobCache(tmp_path, 100)
    (cache.incoming / "half").write_bytes(b"123")
    assert cache.discard_unfinished(older_than_s=60.0, delete=True) == 0
    assert cache.discard_unfinished(older_than_s=0.0, delete=False) == 3
    assert cache.discard_unfinished(older_than_s=0.0, delete=True) == 3
    assert list(cache.incoming.iterdir()) == []


def test_a_cache_knows_nothing_of_what_is_no_digest(tmp_path):
    cache = BlobCache(tmp_path, 100)
    for operation in (cache.find, cache.drop):
        with pytest.raises(NotFoundError):
            operation("../escape")
