"""A backup beside a worker, submitters and a sweep; and a job that goes on where it was restored."""

import threading
import time

import pytest
from sqlalchemy import text

from catalog import Catalog
from catalog.dbos_queue import DbosQueue
from catalog.jobs import list_jobs
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore
from store.verify import verify
from tests.backup.places import back_up, restore_newest
from tests.installing import ENGINE_JOBS, migrated_file, settings_at
from tests.worker.installation import Installation

__all__ = ["migrated_file"]

HEADS = text("SELECT manifest FROM revisions WHERE expired_at IS NULL")
BASES = text("SELECT digest FROM bases")
QUEUED = text(f"SELECT workflow_uuid FROM {ENGINE_JOBS}")  # noqa: S608 - a name of ours


@pytest.fixture
def first(tmp_path, migrated_file):
    with Installation.opened(tmp_path / "first", migrated_file) as opened:
        yield opened


def reopened(folder):
    """An installation in a folder into which one was restored; nothing is registered anew."""

    class Restored(Installation):
        def _register(self):
            pass

    settings = settings_at(folder, lease_s=2.0, beat_s=0.4, poll_s=0.1, stop_timeout_s=5.0)
    return Restored(settings, Catalog(settings), queue=DbosQueue(settings))


def problems_of(installation):
    """What verification finds in the head and in the bases."""
    revisions = installation.read(lambda session: session.execute(HEADS).scalars().all())
    bases = installation.read(lambda session: session.execute(BASES).scalars().all())
    return [
        step.problem for step in verify(installation.store, manifests=revisions, bases=bases) if step.problem
    ]


def test_a_job_that_was_queued_goes_on_where_it_was_restored(first, tmp_path):
    dataset = first.upload_dataset()
    first.learn(first.submit_training("colours", dataset))
    waiting = first.submit_import("imported", first.upload_checkpoint())
    back_up(first.settings, tmp_path / "place")
    report = restore_newest(settings_at(tmp_path / "second"), tmp_path / "place")
    assert report.num_jobs == 1

    second = reopened(tmp_path / "second")
    try:
        assert problems_of(second) == []
        assert second.learn(waiting)["revision"] == 2
        assert problems_of(second) == []
        engines = {row[0] for row in second.read(lambda session: session.execute(QUEUED).all())}
        assert engines == {waiting}
    finally:
        second.queue.close()
        second.catalog.close()


def test_backups_taken_while_jobs_publish_are_whole_each_of_one_moment(first, tmp_path):
    stop, faults = threading.Event(), []

    def go_on_backing_up():
        while not stop.is_set():
            faults.extend(back_up(first.settings, tmp_path / "place").manifest.faults)

    thread = threading.Thread(target=go_on_backing_up)
    thread.start()
    try:
        for number in range(4):
            first.learn(first.submit_import(f"task-{number}", first.upload_checkpoint(seed=number)))
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
    assert faults == []
    restore_newest(settings_at(tmp_path / "second"), tmp_path / "place")
    second = reopened(tmp_path / "second")
    try:
        assert problems_of(second) == []
        assert {job.state for job in second.read(list_jobs)} <= {"succeeded", "queued"}
        store = CheckpointStore(open_blobs(second.settings.blob_place))
        for manifest in second.read(lambda session: session.execute(HEADS).scalars().all()):
            revision = store.manifest(manifest)
            base = store.load_base(revision.base)
            for task in revision.tasks:
                store.rebuild(base, revision, task.name)
    finally:
        second.queue.close()
        second.catalog.close()
