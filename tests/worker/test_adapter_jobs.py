"""Jobs of a model that learns adapters: trained, taken in from elsewhere, killed and taken up again."""

import pytest
import torch

from catalog.bases import find_base
from catalog.models import NewAdapter, create_model
from catalog.revisions import find_revision
from catalog.tasks import find_task
from store.manifest import BaseManifest
from store.safefile import SafeFile, write_safetensors
from tests.tiny_clip import TINY_BATCHNORM_CONFIG, tiny_tensors
from tests.worker.installation import Installation
from vlm.adapters import make_adapter_base
from vlm.architecture import resolve_architecture
from vlm.bases import AdapterRef, BaseRef

STRONG = {"iterations": 40, "learning_rate": 2e-2, "augment": False}


def add_adapted_model(installation, name="zoo", *, rank=4, seed=0):
    """What the new model's adapters start from."""
    with installation.catalog.snapshot() as session:
        digest = find_base(session, "tiny").digest
    ref = base_ref(installation, digest)
    made = make_adapter_base(installation.store, ref, rank=rank, seed=seed)
    with installation.catalog.transaction() as session:
        create_model(session, name=name, base="tiny", adapter=NewAdapter(made.digest, rank, seed))
    return made


def base_ref(installation, digest, adapter=None):
    architecture = resolve_architecture(config=installation.config)
    return BaseRef("tiny", digest, architecture, architecture.preprocessing(), adapter)


def upload_adapter(installation, start, seed=1, change=lambda tensors: None):
    """The digest of an adapter that was trained elsewhere, spoiled by `change`."""
    base = installation.store.load_base(start.digest)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: factor + 0.2 * torch.randn(factor.shape, generator=generator)
        for name, factor in base.space.views(base.flat).items()
    }
    change(tensors)
    path = installation.settings.data / "adapter.safetensors"
    write_safetensors(path, tensors)
    return installation.store.blobs.put_file(path).digest


@pytest.fixture(scope="module", params=["transformer", "convolutional"])
def taught(request, tmp_path_factory, migrated_file):
    """An installation in which the model `zoo` has learned one adapter, with the result of its job."""
    config = {"config": TINY_BATCHNORM_CONFIG} if request.param == "convolutional" else {}
    folder = tmp_path_factory.mktemp(request.param)
    with Installation.opened(folder, migrated_file, **config) as installation:
        installation.start = add_adapted_model(installation)
        job = installation.submit_training(
            "colours", installation.upload_dataset(), model="zoo", keep=True, **STRONG
        )
        installation.result = installation.learn(job)
        yield installation


def test_an_adapter_is_trained_folded_and_published(taught):
    manifest = taught.store.manifest(taught.read(find_revision, "zoo").manifest)
    assert manifest.base == taught.start.digest
    assert taught.result["fidelity"]["cosine"] == pytest.approx(1.0)
    task = taught.read(find_task, "zoo", "colours")
    assert task.accuracy_individual == task.accuracy_expert


def test_the_kept_checkpoint_is_the_adapter_alone(taught):
    task = taught.read(find_task, "zoo", "colours")
    start = BaseManifest.from_json(taught.store.blobs.read_checked(taught.start.digest))
    assert taught.store.blobs.size_bytes(task.checkpoint) == start.size_bytes


def test_the_expert_is_the_base_but_for_the_adapted_layers(taught):
    manifest = taught.store.manifest(taught.read(find_revision, "zoo").manifest)
    base = BaseManifest.from_json(taught.store.blobs.read_checked(taught.start.digest)).extends.base
    start = taught.store.load_base(taught.start.digest)
    adapted = {
        name.replace("lora_A.weight", "weight")
        for name in start.space.views(start.flat)
        if name.endswith("lora_A.weight")
    }
    ref = base_ref(taught, base, AdapterRef(taught.start.digest, 4, 0))
    with taught.bench.pool.lease(ref, manifest, "colours") as expert:
        changed = {
            name
            for name, tensor in expert.model.state_dict().items()
            if not torch.equal(tensor, tiny_tensors(config=taught.config)[name])
        }
    assert changed
    assert changed <= adapted


def test_training_an_adapter_helps(installation):
    add_adapted_model(installation)
    job = installation.submit_training("colours", installation.upload_dataset(), model="zoo", **STRONG)
    accuracy = installation.learn(job)["accuracy"]
    assert accuracy["base"] < accuracy["individual"] == accuracy["expert"]
    assert installation.scratch_files() == []


def test_an_adapter_from_elsewhere_is_folded_in_beside_a_trained_one(installation):
    start = add_adapted_model(installation)
    dataset = installation.upload_dataset()
    installation.learn(installation.submit_training("colours", dataset, model="zoo", **STRONG))
    uploaded = upload_adapter(installation, start)
    result = installation.learn(installation.submit_import("more", uploaded, model="zoo"))
    assert result["revision"] == 2
    manifest = installation.store.manifest(installation.read(find_revision, "zoo").manifest)
    assert [task.name for task in manifest.tasks] == ["colours", "more"]
    assert uploaded not in installation.blobs()


def test_an_adapter_from_elsewhere_is_measured_where_images_come_with_it(installation):
    start = add_adapted_model(installation)
    job = installation.submit_import(
        "colours", upload_adapter(installation, start), model="zoo", dataset=installation.upload_dataset()
    )
    accuracy = installation.learn(job)["accuracy"]
    assert accuracy["individual"] == accuracy["expert"]
    assert accuracy["base"] is not None


def test_a_whole_checkpoint_fails_the_job_of_such_a_model_with_the_remedy(installation):
    add_adapted_model(installation)
    job = installation.run(
        installation.submit_import("colours", installation.upload_checkpoint(), model="zoo")
    )
    assert job.state == "failed"
    assert "adapter's file" in str(job.error)


def test_an_adapter_with_a_nan_fails_the_job_by_name(installation):
    start = add_adapted_model(installation)

    def spoil(tensors):
        tensors[min(tensors)][0, 0] = torch.nan

    uploaded = upload_adapter(installation, start, change=spoil)
    job = installation.run(installation.submit_import("colours", uploaded, model="zoo"))
    assert job.state == "failed"
    assert "lora_" in str(job.error)
    assert "NaN" in str(job.error)


def test_an_adapter_that_was_never_trained_is_refused(installation):
    start = add_adapted_model(installation)
    weights = BaseManifest.from_json(installation.store.blobs.read_checked(start.digest)).weights
    job = installation.run(installation.submit_import("colours", weights, model="zoo"))
    assert job.state == "failed"
    assert "nothing to learn" in str(job.error)


def test_a_model_tuned_in_full_beside_it_learns_as_ever(installation):
    add_adapted_model(installation)
    dataset = installation.upload_dataset()
    installation.learn(installation.submit_training("colours", dataset, keep=True))
    task = installation.read(find_task, "pets", "colours")
    checkpoint = installation.settings.data / "checkpoint"
    installation.store.blobs.copy_to(task.checkpoint, checkpoint)
    assert "token_embedding.weight" in SafeFile(checkpoint).header.tensors
