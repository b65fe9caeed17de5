"""Import jobs: from an uploaded checkpoint to the published revision, and what becomes of the uploads."""

import errno
import os

import pytest

from catalog.datasets import find_dataset, keep_dataset
from catalog.models import create_model
from catalog.revisions import list_revisions, rollback_head
from catalog.tasks import find_task, head_tasks
from store.blobs import BlobWriter, FileBlobs
from store.errors import BlobsUnavailableError
from tests.installing import embedded_only
from vlm.prototypes import PrototypeSet
from worker.jobs import learning, publishing


def prototypes_of(installation, task):
    return PrototypeSet.from_bytes(
        installation.store.blobs.read(installation.read(find_task, "pets", task).prototypes)
    )


def test_without_images_prototypes_come_from_text_and_there_is_no_accuracy(installation):
    checkpoint = installation.upload_checkpoint()
    result = installation.learn(installation.submit_import("colours", checkpoint))
    assert result["accuracy"] == {"base": None, "individual": None, "expert": None}
    assert prototypes_of(installation, "colours").classes == ("red", "green", "blue")
    assert prototypes_of(installation, "colours").num_images == (0, 0, 0)
    assert checkpoint not in installation.blobs()
    assert installation.scratch_files() == []


def test_with_images_it_is_measured_in_the_order_of_its_own_classes(installation):
    classes = ("red", "unseen", "green", "blue")
    dataset = installation.upload_dataset()
    job_id = installation.submit_import(
        "colours", installation.upload_checkpoint(), classes=classes, dataset=dataset
    )
    result = installation.learn(job_id)
    assert None not in result["accuracy"].values()
    assert prototypes_of(installation, "colours").classes == classes
    assert prototypes_of(installation, "colours").num_images == (6, 0, 6, 6)
    assert dataset not in installation.blobs()


def test_images_of_classes_that_the_task_has_not_are_refused(installation):
    dataset = installation.upload_dataset()
    job = installation.run(
        installation.submit_import(
            "colours", installation.upload_checkpoint(), classes=("red", "green"), dataset=dataset
        )
    )
    assert job.state == "failed"
    assert "'blue'" in job.error["detail"]
    assert dataset in installation.blobs()


def test_tasks_add_up_and_each_is_folded_into_the_one_before(installation):
    for number, task in enumerate(("one", "two", "three"), start=1):
        job_id = installation.submit_import(task, installation.upload_checkpoint(number))
        assert installation.learn(job_id)["revision"] == number
    tasks = installation.read(head_tasks, "pets")
    assert [task.name for task in tasks] == ["one", "two", "three"]
    assert [task.trigger.reference for task in tasks] == ["previous revision"] * 2 + ["original"]
    assert [revision.parent for revision in installation.read(list_revisions, "pets")] == [2, 1, None]


def with_nan(tensors, base):
    tensors["visual.proj"][0, 0] = float("nan")


def with_a_tensor_missing(tensors, base):
    del tensors["visual.proj"]


def with_nothing_learned(tensors, base):
    tensors.update(base)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (with_nan, "'visual.proj' has 1 NaN"),
        (with_a_tensor_missing, "tensor 'visual.proj'"),
        (with_nothing_learned, "equal the base"),
    ],
)
def test_a_checkpoint_that_cannot_be_learned_from_fails_the_job_with_a_remedy(installation, change, detail):
    job = installation.run(
        installation.submit_import("colours", installation.upload_checkpoint(change=change))
    )
    assert job.state == "failed"
    assert detail in job.error["detail"]
    assert job.error["remedy"]
    assert installation.read(list_revisions, "pets") == []
    assert installation.scratch_files() == []


def test_images_that_another_unfinished_job_names_stay(installation):
    dataset, checkpoint = installation.upload_dataset(), installation.upload_checkpoint()
    jobs = [installation.submit_import(task, checkpoint, dataset=dataset) for task in ("one", "two")]
    installation.learn(jobs[0])
    assert {dataset, checkpoint} <= installation.blobs()
    assert installation.read(find_dataset, dataset).released_at is None
    installation.learn(jobs[1])
    assert not {dataset, checkpoint} & installation.blobs()


def test_images_uploaded_anew_while_the_job_ran_stay(installation):
    dataset = installation.upload_dataset()
    job_id = installation.submit_import("colours", installation.upload_checkpoint(), dataset=dataset)
    assert installation.upload_dataset() == dataset
    installation.learn(job_id)
    assert dataset in installation.blobs()
    assert installation.read(find_dataset, dataset).released_at is None


def test_images_that_are_kept_for_ever_stay(installation):
    dataset = installation.upload_dataset()
    with installation.catalog.transaction() as session:
        keep_dataset(session, dataset)
    installation.learn(
        installation.submit_import("colours", installation.upload_checkpoint(), dataset=dataset)
    )
    assert dataset in installation.blobs()


def test_a_data_set_that_its_user_deleted_after_the_job_published_does_not_fail_it(installation, monkeypatch):
    dataset = installation.upload_dataset()
    job_id = installation.submit_import("colours", installation.upload_checkpoint(), dataset=dataset)
    real = learning.clean_up

    def clean_up_after_deletion(*args, **kwargs):
        installation.execute("DELETE FROM datasets")
        real(*args, **kwargs)

    monkeypatch.setattr(learning, "clean_up", clean_up_after_deletion)
    assert installation.learn(job_id)["revision"] == 1


def test_images_that_are_gone_fail_the_job(installation):
    dataset = installation.upload_dataset()
    job_id = installation.submit_import("colours", installation.upload_checkpoint(), dataset=dataset)
    installation.store.blobs.delete(dataset)
    job = installation.run(job_id)
    assert (job.state, job.error["title"]) == ("failed", "Stored bytes are missing")


def test_a_head_that_moved_while_folding_is_folded_into_again(installation, monkeypatch):
    for number, task in enumerate(("first", "second"), start=1):
        installation.learn(installation.submit_import(task, installation.upload_checkpoint(number)))
    real, moved = publishing.measure_expert, []

    def roll_back_once(*args):
        if not moved:
            with installation.catalog.transaction() as session:
                moved.append(rollback_head(session, "pets"))
        return real(*args)

    monkeypatch.setattr(publishing, "measure_expert", roll_back_once)
    job_id = installation.submit_import("third", installation.upload_checkpoint(3))
    assert installation.learn(job_id)["revision"] == 3
    assert [task.name for task in installation.read(head_tasks, "pets")] == ["first", "third"]
    assert "folding again" in installation.events(job_id, "log")[0]["text"]


def test_a_head_that_keeps_moving_fails_the_job(installation, monkeypatch):
    for number, task in enumerate(("first", "second"), start=1):
        installation.learn(installation.submit_import(task, installation.upload_checkpoint(number)))
    real, targets = publishing.measure_expert, iter([1, 2] * publishing.MAX_ROUNDS)

    def move(*args):
        with installation.catalog.transaction() as session:
            rollback_head(session, "pets", next(targets))
        return real(*args)

    monkeypatch.setattr(publishing, "measure_expert", move)
    job = installation.run(installation.submit_import("third", installation.upload_checkpoint(3)))
    assert (job.state, job.error["title"]) == ("failed", "The model's head keeps moving")


def test_a_task_that_a_rollback_brought_back_is_not_learned_again(installation):
    for number, task in enumerate(("first", "second"), start=1):
        installation.learn(installation.submit_import(task, installation.upload_checkpoint(number)))
    with installation.catalog.transaction() as session:
        rollback_head(session, "pets")
    job_id = installation.submit_import("second", installation.upload_checkpoint(3))
    with installation.catalog.transaction() as session:
        rollback_head(session, "pets", 2)
    job = installation.run(job_id)
    assert (job.state, job.error["title"]) == ("failed", "The model has this task already")


class FullDisk(FileBlobs):
    """Blobs on a disk that has room for so many more bytes."""

    room = 1 << 40

    def writer(self):
        return FullDiskWriter(super().writer(), self)


class FullDiskWriter(BlobWriter):
    """Takes the bytes that there is room for."""

    def __init__(self, writer, disk):
        super().__init__()
        self.writer = writer
        self.disk = disk

    def _append(self, piece):
        self.disk.room -= memoryview(piece).nbytes
        if self.disk.room < 0:
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise BlobsUnavailableError("cannot write a blob; free disk space") from error
        self.writer.write(piece)

    def _publish(self, blob):
        assert self.writer.commit() == blob

    def _discard(self):
        self.writer.__exit__(None, None, None)


@embedded_only
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_disk_that_fills_up_fails_the_job_and_publishes_nothing(installation, share):
    with installation.catalog.transaction() as session:
        create_model(session, name="twin", base="tiny")
    disk = installation.store.blobs = FullDisk(installation.settings.data / "blobs")
    dataset, checkpoint = installation.upload_dataset(), installation.upload_checkpoint()
    jobs = {
        model: installation.submit_import("colours", checkpoint, dataset=dataset, model=model)
        for model in ("twin", "pets")
    }
    room = disk.room
    installation.learn(jobs["twin"])
    before = installation.blobs()
    disk.room = int(share * (room - disk.room))
    job = installation.run(jobs["pets"])
    assert (job.state, job.error["title"]) == ("failed", "The disk is full")
    assert "condu sweep" in job.error["remedy"]
    assert installation.read(list_revisions, "pets") == []
    assert installation.scratch_files() == []
    assert installation.blobs() >= before
    disk.room = room
    again = installation.submit_import("colours", checkpoint, dataset=dataset)
    assert installation.learn(again)["revision"] == 1
