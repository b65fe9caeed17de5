"""Sweeps without a grace period beside writers: what was acknowledged is there, whoever raced."""

import multiprocessing
import threading

import pytest
from sqlalchemy import text

from api.maintenance import CatalogPermit, let_go, sweep_lines
from catalog import Catalog, upgrade
from catalog.blobs import NewBlob, record_blobs
from catalog.datasets import add_dataset, delete_dataset
from catalog.doomed import DOOM_LEASE_S, doom_blobs, forget_doomed, note_removed
from catalog.errors import SweptMeanwhileError
from catalog.retention import live_roots
from store.blobs import MemoryBlobs, open_blobs
from store.checkpoints import CheckpointStore
from tests.backup.places import embedded, on_servers

WRITERS, ROUNDS, CONTENTS = 3, 12, 4


class Installed:
    """The parts of the service that a sweep needs, on either kind of installation."""

    def __init__(self, settings, blobs=None):
        upgrade(settings.catalog_url)
        self.settings = settings
        self.store = CheckpointStore(blobs or open_blobs(settings.blob_place))
        self.catalog = Catalog(settings).beside(self.store.blobs.contains)

    def sweep(self, **how):
        *_, last = sweep_lines(self, **({"delete": True, "keep_revisions": 1, "grace_s": 0.0} | how))
        return last.report

    def upload(self, content, *, between=lambda: None):
        """The digest of an upload that was acknowledged, sent again as often as that needs."""
        while True:
            blob = self.store.blobs.put(content)
            between()
            try:
                with self.catalog.transaction() as session:
                    name_upload(session, blob)
            except SweptMeanwhileError:
                continue
            return blob.digest


def name_upload(session, blob):
    add_dataset(
        session, digest=blob.digest, format="tar", classes=["a"], num_images=1, size_bytes=blob.size_bytes
    )
    record_blobs(session, [NewBlob(blob.digest, blob.size_bytes, "dataset")])


@pytest.fixture(params=["memory", "files", "servers"])
def installed(request, tmp_path):
    settings = embedded(tmp_path / "data")
    settings.data.mkdir()
    if request.param == "servers":
        url, place = request.getfixturevalue("postgresql_url"), request.getfixturevalue("s3_place")
        settings = on_servers(tmp_path / "data", url, place)
    opened = Installed(settings, MemoryBlobs() if request.param == "memory" else None)
    yield opened
    opened.catalog.close()


def test_an_upload_that_is_swept_before_it_is_named_is_told_so_and_sent_again(installed):
    sweeps = []

    def sweep_once():
        if not sweeps:
            sweeps.append(installed.sweep())

    digest = installed.upload(b"just arriving", between=sweep_once)
    assert sweeps[0].digests == [digest]
    assert bytes(installed.store.blobs.read(digest)) == b"just arriving"
    assert installed.sweep().num_removed == 0


def test_a_second_writer_of_swept_bytes_is_told_too_until_they_are_there_again(installed):
    blob = installed.store.blobs.put(b"twice")
    installed.sweep()
    for _ in range(2):
        with (
            pytest.raises(SweptMeanwhileError, match=blob.digest),
            installed.catalog.transaction() as session,
        ):
            name_upload(session, blob)
    installed.store.blobs.put(b"twice")
    with installed.catalog.transaction() as session:
        name_upload(session, blob)
    with installed.catalog.snapshot() as session:
        assert session.execute(text("SELECT count(*) FROM doomed_blobs")).scalar() == 0


def test_what_was_named_after_the_sweep_looked_is_not_doomed(installed):
    blob = installed.store.blobs.put(b"named in time")
    live, _, _ = let_go(installed, delete=True, keep_revisions=1, grace_s=0.0)
    permit = CatalogPermit(installed, live, set(), keep_revisions=1, grace_s=0.0)
    listed = list(installed.store.blobs.list())
    with installed.catalog.transaction() as session:
        name_upload(session, blob)
    assert permit.doom(listed) == set()


def write_and_release(installed, number, faults):
    """Uploads contents that others upload, too, and looks whether what was acknowledged is there."""
    for turn in range(ROUNDS):
        content = b"content %d" % ((number + turn) % CONTENTS)
        digest = installed.upload(content)
        with installed.catalog.transaction() as session:
            named = digest in live_roots(session).others
            if named and not installed.store.blobs.contains(digest):
                faults.append(f"{content} was acknowledged and is gone")
            if named and turn % 3 == 0:
                delete_dataset(session, digest)


def sweep_until(stop, installed, faults):
    """Sweeps without any grace period, again and again."""
    while not stop.is_set():
        try:
            installed.sweep()
        except Exception as error:
            faults.append(repr(error))
            raise


def test_writers_and_two_sweeps_that_race_never_lose_what_was_acknowledged(installed):
    """Everybody uploads and releases the same few contents, while two sweep."""
    faults, stop = [], threading.Event()
    sweepers = [threading.Thread(target=sweep_until, args=[stop, installed, faults]) for _ in range(2)]
    writers = [
        threading.Thread(target=write_and_release, args=[installed, number, faults])
        for number in range(WRITERS)
    ]
    for thread in sweepers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in sweepers:
        thread.join()
    assert faults == []
    with installed.catalog.snapshot() as session:
        kept = live_roots(session).others
    installed.sweep()
    assert {blob.digest for blob in installed.store.blobs.list()} == kept


def test_a_sweep_that_died_is_waited_for_and_then_finished_by_the_next(installed):
    blob = installed.store.blobs.put(b"doomed by the dead")
    with installed.catalog.transaction() as session:
        assert doom_blobs(session, [blob.digest], sweeper="dead") == {blob.digest}
    assert installed.sweep().num_removed == 0
    with pytest.raises(SweptMeanwhileError), installed.catalog.transaction() as session:
        name_upload(session, blob)
    with installed.catalog.transaction() as session:
        over = text("UPDATE doomed_blobs SET doomed_at = doomed_at - :lease_ms")
        session.execute(over, {"lease_ms": int(DOOM_LEASE_S * 1000) + 1})
    assert installed.sweep().digests == [blob.digest]
    with installed.catalog.transaction() as session:
        note_removed(session, [blob.digest], sweeper="dead")
        forget_doomed(session)
    with pytest.raises(SweptMeanwhileError), installed.catalog.transaction() as session:
        name_upload(session, blob)


def test_doomed_blobs_are_forgotten_after_a_week(installed):
    blob = installed.store.blobs.put(b"long ago")
    installed.sweep()
    with installed.catalog.transaction() as session:
        session.execute(text("UPDATE doomed_blobs SET doomed_at = 0"))
    installed.sweep()
    with installed.catalog.snapshot() as session:
        assert session.execute(text("SELECT count(*) FROM doomed_blobs")).scalar() == 0
    assert not installed.store.blobs.contains(blob.digest)


def test_a_sweep_spares_what_is_younger_than_the_oldest_running_job(installed):
    blob = installed.store.blobs.put(b"of a job")
    job = "UPDATE jobs SET state = 'running', started_at = created_at - 60000"
    with installed.catalog.transaction() as session:
        session.execute(text(INSERT_JOB))
        session.execute(text(job))
    assert installed.sweep().too_young == 1
    with installed.catalog.transaction() as session:
        session.execute(text("UPDATE jobs SET state = 'succeeded'"))
    assert installed.sweep().digests == [blob.digest]


INSERT_JOB = (
    "INSERT INTO jobs (job_id, kind, model, task, state, attempt, num_releases, cancel_requested, request, "
    "created_at) VALUES ('j', 'import', 'm', 't', 'queued', 1, 0, false, '{}', 1700000000000)"
)


def test_progress_moves_from_nothing_to_all(installed):
    installed.upload(b"kept")
    for number in range(3):
        installed.store.blobs.put(b"unnamed %d" % number)
    *steps, last = sweep_lines(installed, delete=True, keep_revisions=1, grace_s=0.0)
    done = [step.progress.done_bytes for step in steps]
    assert done == sorted(done)
    assert done[0] < done[-1] == steps[-1].progress.total_bytes
    assert last.report.num_removed == 3


def test_writers_and_sweeps_in_processes_of_their_own_never_lose_what_was_acknowledged(tmp_path):
    settings = embedded(tmp_path / "data")
    settings.data.mkdir()
    upgrade(settings.catalog_url)
    fork = multiprocessing.get_context("fork")
    stop, told = fork.Event(), fork.SimpleQueue()

    def write(number):
        faults = []
        write_and_release(Installed(settings), number, faults)
        told.put(faults)

    def sweep():
        faults = []
        sweep_until(stop, Installed(settings), faults)
        told.put(faults)

    sweepers = [fork.Process(target=sweep) for _ in range(2)]
    writers = [fork.Process(target=write, args=[number]) for number in range(2)]
    for process in sweepers + writers:
        process.start()
    for process in writers:
        process.join()
    stop.set()
    for process in sweepers:
        process.join()
    assert [process.exitcode for process in sweepers + writers] == [0] * 4
    assert [told.get() for _ in range(4)] == [[]] * 4
