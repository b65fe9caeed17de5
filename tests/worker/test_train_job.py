"""Training jobs with their real training process: what one leaves behind, and how one is stopped."""

from collections import Counter

import pytest
import torch

from catalog.blobs import blob_bytes
from catalog.datasets import find_dataset
from catalog.jobs import cancel_job
from catalog.models import find_model
from catalog.revisions import find_revision, list_revisions
from catalog.tasks import find_task
from store.safefile import SafeFile
from tests.tiny_clip import TINY_BATCHNORM_CONFIG
from tests.worker.installation import TEMPLATES, Installation
from tests.worker.picturing import colour_image, colour_members
from vlm.prototypes import PrototypeSet

BROKEN = {"red/broken.png": b"no", "blue/half.png": colour_image("blue", 1)[:60]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, migrated_file):
    """An installation in which one training job has run, its result and what it reported."""
    with Installation.opened(tmp_path_factory.mktemp("trained"), migrated_file) as installation:
        installation.dataset = installation.upload_dataset(colour_members() | BROKEN)
        installation.job_id = installation.submit_training(
            "colours", installation.dataset, iterations=40, augment=False
        )
        installation.reports = []
        installation.result = installation.learn(installation.job_id, on_report=installation.reports.append)
        yield installation


def test_the_expert_is_published_as_the_models_head(trained):
    task = trained.read(find_task, "pets", "colours")
    assert trained.result["revision"] == trained.read(find_model, "pets").head_revision == 1
    assert (task.classes, task.templates) == (("blue", "green", "red"), tuple(TEMPLATES))
    assert (task.num_train, task.num_test, task.dataset) == (18, 6, trained.dataset)
    assert task.training["iterations"] == 40


def test_all_three_accuracies_are_recorded_and_training_helped(trained):
    task = trained.read(find_task, "pets", "colours")
    recorded = {
        "base": task.accuracy_base,
        "individual": task.accuracy_individual,
        "expert": task.accuracy_expert,
    }
    assert trained.result["accuracy"] == recorded
    # One task alone is exact, so the expert answers as the fine-tune does.
    assert recorded["base"] < recorded["individual"] == recorded["expert"] == 100.0


def test_the_fidelity_of_the_only_task_is_perfect(trained):
    fidelity = trained.result["fidelity"]
    assert fidelity["cosine"] == pytest.approx(1.0)
    assert fidelity["rescaler"] == pytest.approx(1.0)
    assert fidelity["relative_l2"] == pytest.approx(0.0, abs=1e-6)
    assert 0 < fidelity["density"] <= 1


def test_broken_images_are_skipped_counted_and_shown(trained):
    assert trained.result["images_skipped"] == 2
    assert {each["name"] for each in trained.result["skipped"]} == set(BROKEN)
    assert trained.read(find_task, "pets", "colours").images_skipped == 2
    assert "2 images are broken and were left out" in trained.events(trained.job_id, "log")[0]["text"]


def test_prototypes_are_those_of_the_images_trained_on(trained):
    task = trained.read(find_task, "pets", "colours")
    prototypes = PrototypeSet.from_bytes(trained.store.blobs.read(task.prototypes))
    assert (prototypes.classes, prototypes.num_images) == (task.classes, (6, 6, 6))
    assert prototypes.templates == tuple(TEMPLATES)


def test_few_shots_are_all_that_is_trained_on_and_all_that_prototypes_are_made_of(installation):
    dataset = installation.upload_dataset(colour_members(num_each=10))
    installation.learn(installation.submit_training("colours", dataset, shots=3))
    task = installation.read(find_task, "pets", "colours")
    prototypes = PrototypeSet.from_bytes(installation.store.blobs.read(task.prototypes))
    assert (task.num_train, task.num_test, task.training["shots"]) == (9, 6, 3)
    assert prototypes.num_images == (3, 3, 3)


def test_a_class_with_fewer_images_than_shots_fails_the_job_by_name_and_count(installation):
    members = colour_members() | {"grey/1.png": colour_image("grey", 1), "grey/2.png": b"no"}
    dataset = installation.upload_dataset(members)
    job = installation.run(installation.submit_training("colours", dataset, shots=3))
    assert job.state == "failed"
    assert "'grey' has 1 training images, shots asks for 3" in job.error["detail"]
    assert installation.scratch_files() == []


def test_every_phase_tells_how_far_it_is(trained):
    phases = Counter(report["phase"] for report in trained.reports)
    assert list(phases) == ["unpack", "train", "measure", "prototypes", "fuse", "publish"]
    assert all(0 <= report["step"] <= report["steps"] for report in trained.reports)
    training = [report for report in trained.reports if report["phase"] == "train"]
    assert training[-1]["step"] == 40
    assert training[-1]["loss"] < training[0]["loss"]
    assert all({"images_per_s", "eta_s"} <= report.keys() for report in training)


def test_nothing_is_left_but_what_the_revision_names(trained):
    revision = trained.read(find_revision, "pets")
    manifest = trained.store.manifest(revision.manifest)
    weights = trained.store.load_base(manifest.base).manifest.weights
    assert trained.blobs() == manifest.named_blobs() | {weights, revision.manifest}
    assert trained.read(find_dataset, trained.dataset).released_at is not None
    assert "dataset" not in trained.read(blob_bytes)
    assert trained.scratch_files() == []


def test_a_cancelled_job_ends_its_training_process_and_leaves_nothing(installation):
    job_id = installation.submit_training("colours", installation.upload_dataset(), iterations=100_000)

    def cancel(progress):
        if progress["phase"] == "train":
            with installation.catalog.transaction() as session:
                cancel_job(session, job_id)

    assert installation.run(job_id, on_report=cancel).state == "cancelled"
    assert installation.scratch_files() == []
    assert installation.read(list_revisions, "pets") == []


def test_a_class_left_without_training_images_fails_the_job_by_name(installation):
    members = colour_members() | {"grey/1.png": b"no", "grey/2.png": b"no"}
    job = installation.run(installation.submit_training("colours", installation.upload_dataset(members)))
    assert job.state == "failed"
    assert "'grey'" in job.error["detail"]
    assert installation.scratch_files() == []


def test_a_kept_job_on_a_base_with_batchnorm_keeps_images_checkpoint_and_the_bases_statistics(
    tmp_path, migrated_file
):
    with Installation.opened(tmp_path, migrated_file, config=TINY_BATCHNORM_CONFIG) as installation:
        dataset = installation.upload_dataset(form="zip")
        installation.learn(installation.submit_training("colours", dataset, keep=True))
        assert dataset in installation.blobs()
        assert installation.read(find_dataset, dataset).is_kept
        path = installation.settings.data / "kept.safetensors"
        installation.store.blobs.copy_to(installation.read(find_task, "pets", "colours").checkpoint, path)
        manifest = installation.store.manifest(installation.read(find_revision, "pets").manifest)
        base = installation.store.load_base(manifest.base)
        kept = SafeFile(path).tensors()
        rebuilt = base.space.views(installation.store.rebuild(base, manifest, "colours").flat)
        assert kept.keys() == {spec.name for spec in base.space.all_specs}
        for name, tensor in rebuilt.items():
            torch.testing.assert_close(tensor, kept[name])
        assert manifest.task("colours").buffers is None
