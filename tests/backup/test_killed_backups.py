"""kill -9 in the middle of a backup or a restore: nothing that looks whole, and the next run completes it."""

import multiprocessing
import os
import signal

import pytest

from catalog.database import newest_schema, schema_of
from catalog.rows import load_rows, require_empty
from cli.backup.making import make_backup
from cli.backup.place import BackupPlace, open_place
from cli.backup.restoring import restore_backup
from store.blobs import FileBlobs
from store.errors import CorruptBlobError
from tests.backup.places import (
    back_up,
    contents_of,
    embedded,
    fill_installation,
    quiet,
    restore_newest,
    rows_of,
)


@pytest.fixture
def filled(tmp_path):
    settings = embedded(tmp_path / "first")
    fill_installation(settings)
    return settings


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed(act, *args):
    """Whether a process of its own was killed while it did that."""
    child = multiprocessing.get_context("fork").Process(target=act, args=args)
    child.start()
    child.join(60)
    return child.exitcode == -signal.SIGKILL


def dying_at(call):
    """A progress that kills its process when it is told so often."""
    calls = iter(range(1, call))
    return lambda *_: next(calls, None) or die()


class DiesBeforeItsLastWrite(FileBlobs):
    def writer(self):
        die()


def test_a_backup_that_was_killed_anywhere_is_none_and_the_next_one_completes_it(filled, tmp_path):
    where = tmp_path / "place"

    def begin(call):
        place = open_place(str(where), filled, endpoint=None)
        make_backup(filled, place, on_progress=dying_at(call))

    call = 1
    while is_killed(begin, call):
        assert open_place(str(where), filled, endpoint=None).find_backups() == {}
        call += 1
    assert call > 2, "no kill in the middle"
    found = open_place(str(where), filled, endpoint=None).find_backups()
    assert len(found) == 1
    restored = embedded(tmp_path / "restored")
    restore_newest(restored, where)
    assert contents_of(restored) == contents_of(filled)


def test_a_backup_that_was_killed_before_its_manifest_is_none_and_copies_nothing_twice(filled, tmp_path):
    where = tmp_path / "place"

    def begin():
        place = open_place(str(where), filled, endpoint=None)
        dying = BackupPlace(place.blobs, DiesBeforeItsLastWrite(where / "backups"))
        make_backup(filled, dying, on_progress=quiet)

    assert is_killed(begin)
    assert open_place(str(where), filled, endpoint=None).find_backups() == {}
    assert back_up(filled, where).num_copied == 0


def test_a_restore_that_was_killed_anywhere_leaves_an_empty_catalog_and_the_next_one_completes_it(
    filled, tmp_path
):
    back_up(filled, tmp_path / "place")
    target = embedded(tmp_path / "new")

    def begin(call):
        place = open_place(str(tmp_path / "place"), target, endpoint=None)
        restore_backup(target, place, next(iter(place.find_backups())), on_progress=dying_at(call))

    call = 1
    while is_killed(begin, call):
        assert schema_of(target.catalog_url) is None
        call += 1
    assert call > 3, "no kill in the middle"
    assert contents_of(target) == contents_of(filled)
    assert len(rows_of(target)) == len(rows_of(filled))


def test_a_restore_that_was_killed_among_the_rows_leaves_none_of_them(filled, tmp_path):
    back_up(filled, tmp_path / "place")
    target = embedded(tmp_path / "new")
    target.data.mkdir()
    lines = rows_of(filled)

    def begin(which):
        def cut_off():
            yield from lines[:which]
            die()

        load_rows(target.catalog_url, cut_off(), schema=newest_schema(), requeue=die)

    for which in (1, len(lines)):
        assert is_killed(begin, which)
        require_empty(target.catalog_url)
    restore_newest(target, tmp_path / "place")
    assert contents_of(target) == contents_of(filled)
    assert len(rows_of(target)) == len(lines)


def test_damage_of_the_installation_is_named_and_all_else_is_kept(filled, tmp_path):
    digests = sorted(contents_of(filled))
    blobs = FileBlobs(filled.data / "blobs")
    large = max(digests, key=blobs.size_bytes)
    path = blobs.path(large)
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    report = back_up(filled, tmp_path / "place")
    assert [large in fault for fault in report.manifest.faults] == [True]
    assert set(report.manifest.blobs) == set(digests) - {large}
    path.unlink()
    assert back_up(filled, tmp_path / "place").manifest.faults == [f"blob {large} is missing"]


def test_a_damaged_manifest_of_the_installation_keeps_nothing_from_the_backup(filled, tmp_path):
    blobs = FileBlobs(filled.data / "blobs")
    stray = blobs.put(b"named by nobody that can be read").digest
    (base,) = [digest for digest, content in contents_of(filled).items() if b'"kind":"base"' in content]
    path = blobs.path(base)
    path.chmod(0o644)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    report = back_up(filled, tmp_path / "place")
    assert stray in report.manifest.blobs
    assert len(report.manifest.blobs) == len(contents_of(filled)) - 1
    assert len(report.manifest.faults) == 1


def test_damage_in_the_place_is_found_by_a_check_and_copied_anew(filled, tmp_path):
    report = back_up(filled, tmp_path / "place")
    inside = FileBlobs(tmp_path / "place" / "blobs")
    large = max(report.manifest.blobs, key=inside.size_bytes)
    path = inside.path(large)
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert back_up(filled, tmp_path / "place").num_copied == 0
    assert back_up(filled, tmp_path / "place", rechecks=True).num_copied == 1
    restored = embedded(tmp_path / "restored")
    restore_newest(restored, tmp_path / "place")
    assert contents_of(restored) == contents_of(filled)


def spoil(blobs, digest):
    path = blobs.path(digest)
    path.chmod(0o644)
    path.write_bytes(b"x" + path.read_bytes()[1:])


def test_what_a_dead_restore_left_damaged_is_copied_again(filled, tmp_path):
    report = back_up(filled, tmp_path / "place")
    target = embedded(tmp_path / "new")
    left = FileBlobs(target.data / "blobs")
    for digest in report.manifest.blobs:
        left.put(contents_of(filled)[digest])
    large = max(report.manifest.blobs, key=left.size_bytes)
    spoil(left, large)
    assert restore_newest(target, tmp_path / "place").num_copied == 1
    assert contents_of(target) == contents_of(filled)


def test_damaged_rows_or_blobs_of_a_backup_are_never_restored(filled, tmp_path):
    report = back_up(filled, tmp_path / "place")
    inside = FileBlobs(tmp_path / "place" / "blobs")
    for digest in (report.manifest.rows, max(report.manifest.blobs, key=inside.size_bytes)):
        target = embedded(tmp_path / digest)
        whole = bytes(inside.read(digest))
        spoil(inside, digest)
        with pytest.raises(CorruptBlobError, match=digest):
            restore_newest(target, tmp_path / "place")
        assert schema_of(target.catalog_url) is None
        inside.path(digest).write_bytes(whole)
    restore_newest(target, tmp_path / "place")
    assert contents_of(target) == contents_of(filled)
