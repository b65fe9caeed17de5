"""A worker that dies while it trains an adapter: the next one goes on, and the revision has the same bits."""

import signal

import pytest

from catalog.revisions import list_revisions
from store.safefile import read_header
from tests.catalog.fixtures import migrated_file
from tests.faults.worker_with_kill_points import (
    KILLED_IN_TRAINING,
    Nursery,
    training_processes,
    wait_for_none,
)
from tests.worker.installation import Installation
from tests.worker.test_adapter_jobs import add_adapted_model
from worker.training.spec import STATE_NAME

__all__ = ["migrated_file"]

# Iterations, so that the training process reports before its end: it does so twice a second.
LONG_ENOUGH = 150


@pytest.fixture(scope="module")
def nursery():
    opened = Nursery()
    yield opened
    opened.close()


def submit(installation):
    start = add_adapted_model(installation)
    job_id = installation.submit_training(
        "colours", installation.upload_dataset(), model="zoo", iterations=LONG_ENOUGH, checkpoint_every=10
    )
    return start, job_id


def manifests(installation):
    return [revision.manifest for revision in installation.read(list_revisions, "zoo")]


def test_the_adapter_that_a_killed_worker_left_is_trained_on_bit_for_bit(
    installation, nursery, tmp_path_factory, migrated_file
):
    with Installation.opened(tmp_path_factory.mktemp("undisturbed"), migrated_file) as undisturbed:
        _, job_id = submit(undisturbed)
        assert nursery.run_worker(undisturbed.settings, job_id) == 0
        expected = manifests(undisturbed), undisturbed.find(job_id).result["accuracy"]
    start, job_id = submit(installation)
    assert nursery.run_worker(installation.settings, job_id, point=KILLED_IN_TRAINING) == -signal.SIGKILL
    wait_for_none(lambda: training_processes(installation.bench.scratch(job_id)))
    state = read_header(installation.bench.scratch(job_id) / STATE_NAME).tensors
    names = {spec.name for spec in installation.store.load_base(start.digest).space.fused}
    assert {name.split("/", 1)[1] for name in state} == names
    assert nursery.run_worker(installation.settings, job_id) == 0
    assert (manifests(installation), installation.find(job_id).result["accuracy"]) == expected
    assert installation.scratch_files() == []


@pytest.fixture
def installation(tmp_path, migrated_file):
    with Installation.opened(tmp_path, migrated_file) as opened:
        yield opened
