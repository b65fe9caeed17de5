"""Workers that are killed with -9 at every step of learning a task: the next one finishes, and fuses once."""

import json
import signal

import pytest

from catalog.retention import live_roots
from catalog.revisions import list_revisions
from store.safefile import read_header
from store.sweep import Roots, sweep
from tests.catalog.fixtures import migrated_file
from tests.faults.worker_with_kill_points import (
    KILLED_IN_TRAINING,
    POINTS,
    SIGNALLED_AT_STEP,
    STOPPED_IN_TRAINING,
    Nursery,
    training_processes,
    wait_for_none,
)
from tests.worker.installation import Installation
from worker.training.spec import STATE_NAME

__all__ = ["migrated_file"]

# Iterations, so that the training process reports before its end: it does so twice a second.
LONG_ENOUGH = 150
PUBLISHED = {"after publishing", "cleaning up", "before the job is done"}


@pytest.fixture(scope="module")
def nursery():
    opened = Nursery()
    yield opened
    opened.close()


@pytest.fixture
def installation(tmp_path, migrated_file):
    with Installation.opened(tmp_path, migrated_file) as opened:
        yield opened


def submit(installation, kind):
    dataset = installation.upload_dataset()
    if kind == "train":
        return installation.submit_training("colours", dataset, iterations=LONG_ENOUGH, checkpoint_every=10)
    return installation.submit_import("colours", installation.upload_checkpoint(), dataset=dataset)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, migrated_file, nursery):
    """The manifests and results of jobs whose worker was left alone."""
    found = {}
    for kind in ("train", "import"):
        with Installation.opened(tmp_path_factory.mktemp(kind), migrated_file) as installation:
            job_id = submit(installation, kind)
            assert nursery.run_worker(installation.settings, job_id) == 0
            found[kind] = (list_manifests(installation), installation.find(job_id).result)
    return found


def list_manifests(installation):
    return [revision.manifest for revision in installation.read(list_revisions, "pets")]


def assert_finished_once(installation, job_id, expected):
    job = installation.find(job_id)
    assert (job.state, job.attempt) == ("succeeded", 2), job.error
    assert list_manifests(installation) == expected[0]
    assert job.result | {"skipped": []} == expected[1] | {"skipped": []}
    assert installation.scratch_files() == []
    with installation.catalog.snapshot() as session:
        live = live_roots(session)
    roots = Roots(manifests=live.manifests, bases=live.bases, others=live.others)
    left = sweep(installation.store, roots, grace_s=0.0, delete=True)
    assert not {job.dataset, job.checkpoint} & installation.blobs()
    assert left.bytes_kept > 0


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_there_is_replaced_and_the_task_is_fused_once(
    installation, nursery, undisturbed, point
):
    job_id = submit(installation, "import")
    assert nursery.run_worker(installation.settings, job_id, point=point) == -signal.SIGKILL
    assert installation.find(job_id).state == "running"
    assert len(list_manifests(installation)) == (1 if point in PUBLISHED else 0)
    assert nursery.run_worker(installation.settings, job_id) == 0
    assert_finished_once(installation, job_id, undisturbed["import"])


def test_a_worker_killed_while_training_takes_its_child_along_and_the_next_goes_on_bit_for_bit(
    installation, nursery, undisturbed
):
    job_id = submit(installation, "train")
    assert nursery.run_worker(installation.settings, job_id, point=KILLED_IN_TRAINING) == -signal.SIGKILL
    wait_for_none(lambda: training_processes(installation.bench.scratch(job_id)))
    assert (installation.bench.scratch(job_id) / STATE_NAME).exists()
    assert nursery.run_worker(installation.settings, job_id) == 0
    assert_finished_once(installation, job_id, undisturbed["train"])


def test_a_worker_told_to_stop_while_training_saves_its_work_and_gives_the_job_back(
    installation, nursery, undisturbed
):
    job_id = submit(installation, "train")
    assert nursery.run_worker(installation.settings, job_id, point=STOPPED_IN_TRAINING) == 0
    job = installation.find(job_id)
    assert (job.state, job.num_releases) == ("queued", 1)
    saved = read_header(installation.bench.scratch(job_id) / STATE_NAME).metadata["condu_training"]
    assert SIGNALLED_AT_STEP <= json.loads(saved)["iteration"] < LONG_ENOUGH
    assert nursery.run_worker(installation.settings, job_id) == 0
    assert_finished_once(installation, job_id, undisturbed["train"])


def test_the_scratch_files_of_a_job_that_is_over_go_when_a_worker_starts(installation):
    job_id = submit(installation, "import")
    installation.learn(job_id)
    for name in (job_id, "of-no-job"):
        (installation.bench.scratch(name)).mkdir(parents=True)
    waiting = installation.submit_import("greys", installation.upload_checkpoint(8))
    installation.bench.scratch(waiting).mkdir()
    installation.bench.discard_leftovers(installation.catalog)
    assert [path.name for path in (installation.settings.scratch_dir / "jobs").iterdir()] == [waiting]
