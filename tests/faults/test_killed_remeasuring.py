"""Workers that are killed with -9 while they measure earlier tasks again: what was measured is not lost."""

import signal

import pytest

from catalog.datasets import keep_dataset
from catalog.revisions import list_revisions
from catalog.tasks import head_tasks
from tests.catalog.fixtures import migrated_file
from tests.faults.worker_with_kill_points import REMEASURING_POINTS, Nursery
from tests.worker.installation import Installation
from tests.worker.picturing import colour_image, colour_members
from worker.files import read_json
from worker.jobs.remeasuring import MARKER_NAME

__all__ = ["migrated_file"]

KEPT = ("first", "second")


@pytest.fixture(scope="module")
def nursery():
    opened = Nursery()
    yield opened
    opened.close()


@pytest.fixture
def installation(tmp_path, migrated_file):
    with Installation.opened(tmp_path, migrated_file) as opened:
        yield opened


def learn_two_kept_tasks(installation):
    for number, task in enumerate(KEPT):
        members = colour_members() | {"red/own.png": colour_image("red", 60 + number)}
        dataset = installation.upload_dataset(members)
        with installation.catalog.transaction() as session:
            keep_dataset(session, dataset)
        checkpoint = installation.upload_checkpoint(number)
        installation.learn(installation.submit_import(task, checkpoint, dataset=dataset))


def submit_third(installation):
    learn_two_kept_tasks(installation)
    dataset = installation.upload_dataset(colour_members(offset=40))
    return installation.submit_import("third", installation.upload_checkpoint(2), dataset=dataset)


def measures_of_head(installation):
    return {
        task.name: (task.trigger.accuracy, task.trigger.routing, task.trigger.unmeasured)
        for task in installation.read(head_tasks, "pets")
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, migrated_file, nursery):
    """The measures after a fusion whose worker was left alone."""
    with Installation.opened(tmp_path_factory.mktemp("alone"), migrated_file) as installation:
        job_id = submit_third(installation)
        assert nursery.run_worker(installation.settings, job_id) == 0
        return measures_of_head(installation)


def noted_by(installation, job_id):
    """The tasks that the next attempt need not measure."""
    found = read_json(installation.bench.scratch(job_id) / MARKER_NAME)
    return set() if found is None else set(found["tasks"])


@pytest.mark.parametrize("point", REMEASURING_POINTS)
def test_a_worker_killed_there_is_replaced_and_measures_only_what_is_missing(
    installation, nursery, undisturbed, point
):
    job_id = submit_third(installation)
    assert nursery.run_worker(installation.settings, job_id, point=point) == -signal.SIGKILL
    assert len(installation.read(list_revisions, "pets")) == 2
    left = {"nothing": set(), "the first task": {"first"}, "all tasks": set(KEPT)}
    assert noted_by(installation, job_id) == left[point.partition(",")[0]] | {"third"}

    assert nursery.run_worker(installation.settings, job_id) == 0
    assert measures_of_head(installation) == undisturbed
    assert None not in {accuracy for accuracy, _, _ in undisturbed.values()}
    assert len(installation.read(list_revisions, "pets")) == 3
    assert installation.find(job_id).attempt == 2
    assert installation.scratch_files() == []
    measured = [
        event["text"].split(":")[0]
        for event in installation.events(job_id, "log")
        if "accuracy" in event["text"]
    ]
    assert measured.count("task 'first'") == 1
