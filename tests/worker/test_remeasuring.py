"""What a fusion does to the tasks learned before, measured on the images that their users kept."""

import pytest
import torch

from catalog.bases import find_base
from catalog.datasets import delete_dataset, keep_dataset
from catalog.jobs import cancel_job
from catalog.models import create_model
from catalog.revisions import find_revision, list_revisions, rollback_head
from catalog.tasks import find_task, list_triggers
from serving.pinning import base_ref
from tests.worker.installation import TEMPLATES
from tests.worker.picturing import colour_image, colour_members
from tests.worker.test_adapter_jobs import add_adapted_model, upload_adapter
from vlm.evaluation import evaluate
from vlm.prediction import Predictor
from vlm.routing_summary import RoutedPictures, RoutingSummary
from worker.jobs import publishing
from worker.jobs.remeasuring import DELETED, NOT_KEPT, NOTHING_HELD_OUT

CLASSES = ("red", "blue", "green")
HELD_OUT = {f"test/{c}/{n}.png": colour_image(c, 100 + n) for c in CLASSES for n in range(3)}
MEMBERS = {f"train/{name}": content for name, content in colour_members(num_each=4).items()} | HELD_OUT


def learn(installation, task, seed, *, members=None, keeps=True, **how):
    """An imported task, whose images are kept unless told otherwise."""
    dataset = None
    if members is not None:
        dataset = installation.upload_dataset(members)
        if keeps:
            with installation.catalog.transaction() as session:
                keep_dataset(session, dataset)
    checkpoint = installation.upload_checkpoint(seed)
    model = how.pop("model", "pets")
    job_id = installation.submit_import(task, checkpoint, classes=CLASSES, dataset=dataset, model=model)
    return installation.learn(job_id, **how)


def trigger_of(installation, task, *, model="pets"):
    return installation.read(find_task, model, task).trigger


def measured_by_hand(installation, task):
    """Accuracy and routing of the task's expert in the head, on the images held out."""
    with installation.catalog.snapshot() as session:
        base = base_ref(find_base(session, "tiny"))
        manifest = installation.store.manifest(find_revision(session, "pets").manifest)
    load = base.preprocessing.load
    pictures = torch.stack([load(content, max_pixels=10**6) for content in HELD_OUT.values()])
    numbers = torch.tensor([CLASSES.index(name.split("/")[1]) for name in HELD_OUT])
    predictor = Predictor(installation.bench.pool)
    summary = RoutingSummary([entry.name for entry in manifest.tasks])
    summary.add_all(task, predictor.route(base, manifest, pictures))
    with installation.bench.pool.lease(base, manifest, task) as expert:
        accuracy = evaluate(
            expert.model, expert.tokenizer, [(pictures, numbers)], classes=CLASSES, templates=TEMPLATES
        )
    return accuracy, summary.of(task)


def test_a_task_whose_images_are_kept_is_measured_again_at_every_fusion(installation):
    learn(installation, "first", 1, members=MEMBERS)
    own = trigger_of(installation, "first")
    assert (own.accuracy, own.unmeasured) == (
        installation.read(find_task, "pets", "first").accuracy_expert,
        None,
    )
    for number, task in enumerate(("second", "third"), start=2):
        reports = []
        learn(installation, task, number, on_report=reports.append)
        found = trigger_of(installation, "first")
        accuracy, routing = measured_by_hand(installation, "first")
        assert (found.revision, found.accuracy, found.unmeasured) == (number, accuracy, None)
        assert RoutedPictures.from_dict(found.routing) == routing
        counted = [report["step"] for report in reports if report["phase"] == "remeasure"]
        assert counted[-1] == len(HELD_OUT)
    assert len(found.routing["shares"]) == 4
    assert [trigger.revision for trigger in installation.read(list_triggers, "pets", "first")] == [1, 2, 3]
    assert installation.scratch_files() == []


def test_the_routing_of_a_new_task_is_measured_at_its_own_step_kept_or_not(installation):
    learn(installation, "first", 1)
    learn(installation, "second", 2, members=MEMBERS, keeps=False)
    found = trigger_of(installation, "second")
    accuracy, routing = measured_by_hand(installation, "second")
    assert found.accuracy == accuracy
    assert RoutedPictures.from_dict(found.routing) == routing
    assert routing.num_images == len(HELD_OUT)


def test_a_task_that_was_trained_is_held_out_again_by_its_own_draw(installation):
    dataset = installation.upload_dataset()
    training = {"keep": True, "seed": 3, "test_fraction": 0.5}
    installation.learn(installation.submit_training("first", dataset, **training))
    learn(installation, "second", 9)
    found = trigger_of(installation, "first")
    assert found.routing["num_images"] == 12
    assert found.accuracy is not None


def test_a_task_of_a_model_that_learns_adapters_is_measured_again(installation):
    start = add_adapted_model(installation)
    dataset = installation.upload_dataset(MEMBERS)
    training = {"model": "zoo", "keep": True, "iterations": 40, "learning_rate": 2e-2, "augment": False}
    installation.learn(installation.submit_training("first", dataset, **training))
    own = trigger_of(installation, "first", model="zoo")
    adapter = upload_adapter(installation, start)
    installation.learn(installation.submit_import("second", adapter, classes=CLASSES, model="zoo"))
    now = trigger_of(installation, "first", model="zoo")
    assert (own.accuracy, own.routing["num_images"]) == (100.0, len(HELD_OUT))
    assert (now.revision, now.unmeasured, now.routing["num_images"]) == (2, None, len(HELD_OUT))
    assert now.accuracy is not None
    assert [share["task"] for share in now.routing["shares"]] == [None, "first", "second"]


def test_images_held_out_are_the_same_whether_others_were_broken_or_not(installation):
    with installation.catalog.transaction() as session:
        create_model(session, name="twin", base="tiny")
    learn(installation, "first", 1, members=colour_members())
    learn(installation, "first", 1, members=colour_members() | {"red/no.png": b"no"}, model="twin")
    assert installation.read(find_task, "twin", "first").images_skipped == 1
    found = []
    for model in ("pets", "twin"):
        learn(installation, "second", 2, model=model)
        trigger = trigger_of(installation, "first", model=model)
        found.append((trigger.accuracy, trigger.routing))
    assert found[0] == found[1]
    assert found[0][0] is not None


def test_what_cannot_be_measured_has_a_plain_reason(installation):
    learn(installation, "text", 1)
    learn(installation, "let-go", 2, members=MEMBERS, keeps=False)
    learn(installation, "deleted", 3, members=MEMBERS | {"train/red/more.png": colour_image("red", 50)})
    with installation.catalog.transaction() as session:
        delete_dataset(session, installation.read(find_task, "pets", "deleted").dataset)
    learn(installation, "last", 4)
    reasons = {
        task: trigger_of(installation, task).unmeasured for task in ("text", "let-go", "deleted", "last")
    }
    assert reasons == {
        "text": NOTHING_HELD_OUT,
        "let-go": NOT_KEPT,
        "deleted": DELETED,
        "last": NOTHING_HELD_OUT,
    }
    assert trigger_of(installation, "let-go").accuracy is None


def lose_the_archive(installation, dataset):
    installation.store.blobs.delete(dataset)


def hold_out_fewer(installation, dataset):
    installation.execute("UPDATE tasks SET num_test = 2")


def call_a_class_otherwise(installation, dataset):
    installation.execute("""UPDATE tasks SET classes = '["red", "blue", "grey"]'""")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lose_the_archive, "Stored bytes are missing"),
        (hold_out_fewer, "It holds out 9 images of 3 classes; 2 of 3 were held out"),
        (call_a_class_otherwise, "Its data set is not what it was"),
    ],
)
def test_images_that_are_not_what_they_were_never_fail_the_job(installation, spoil, told):
    learn(installation, "first", 1, members=MEMBERS)
    spoil(installation, installation.read(find_task, "pets", "first").dataset)
    job_id = installation.submit_import("second", installation.upload_checkpoint(2))
    assert installation.learn(job_id)["revision"] == 2
    found = trigger_of(installation, "first")
    assert told in found.unmeasured
    assert found.accuracy is found.routing is None
    assert any(told in event["text"] for event in installation.events(job_id, "log"))
    assert installation.scratch_files() == []


def test_a_job_cancelled_while_it_measures_again_publishes_nothing(installation):
    learn(installation, "first", 1, members=MEMBERS)
    job_id = installation.submit_import("second", installation.upload_checkpoint(2))
    phases = []

    def cancel_when_folded(progress):
        phases.append(progress["phase"])
        if progress["phase"] == "fuse" and progress["step"] == progress["steps"]:
            with installation.catalog.transaction() as session:
                cancel_job(session, job_id)

    assert installation.run(job_id, on_report=cancel_when_folded).state == "cancelled"
    assert phases[-1] == "fuse"  # the archive of the first task is not even unpacked
    assert installation.scratch_files() == []
    assert len(installation.read(list_revisions, "pets")) == 1


def test_a_head_that_moved_is_measured_anew_as_it_will_be_served(installation, monkeypatch):
    learn(installation, "first", 1, members=MEMBERS)
    learn(installation, "second", 2)
    real, rounds = publishing.measure_tasks, []

    def roll_back_after_measuring(*args, **kwargs):
        found = real(*args, **kwargs)
        if not rounds:
            with installation.catalog.transaction() as session:
                rollback_head(session, "pets")
        rounds.append(found)
        return found

    monkeypatch.setattr(publishing, "measure_tasks", roll_back_after_measuring)
    learn(installation, "third", 3)
    assert [set(found) for found in rounds] == [{"first", "second", "third"}, {"first", "third"}]
    accuracy, routing = measured_by_hand(installation, "first")
    found = trigger_of(installation, "first")
    assert (found.accuracy, RoutedPictures.from_dict(found.routing)) == (accuracy, routing)
    assert [revision.parent for revision in installation.read(list_revisions, "pets")] == [1, 1, None]
