"""An installation for the worker's tests: real catalog, real store, a tiny base, jobs run in this process."""

import hashlib
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import torch
from sqlalchemy import text

from catalog import Catalog
from catalog.attempts import claim_job
from catalog.bases import add_base
from catalog.blobs import NewBlob, record_blobs
from catalog.datasets import add_dataset
from catalog.dbos_queue import DbosQueue
from catalog.job_events import list_events
from catalog.jobs import find_job, submit_job
from catalog.models import create_model
from catalog.running_job import RunningJob, run_claimed
from catalog.training_options import TrainingOptions
from imagesets import inspect_archive
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore
from store.safefile import SafeFile, write_safetensors
from tests.installing import migrated_settings_at
from tests.tiny_clip import TINY_CONFIG, tiny_expert_tensors, tiny_tensors, write_tiny_base
from tests.worker.picturing import colour_archive
from vlm.architecture import resolve_architecture
from vlm.experts import ExpertPool
from worker.main import run_job
from worker.workbench import Workbench

TEMPLATES = ["a photo of a {}.", "a drawing of a {}."]
QUICK = {"iterations": 6, "batch_size": 6, "learning_rate": 1e-3, "checkpoint_every": 1}


class Watched(RunningJob):
    """A job whose every report is seen; the catalog keeps few of them."""

    def report(self, progress):
        self.on_report(progress)
        super().report(progress)


class Installation:
    """A data folder with a base `tiny` and a model `pets`."""

    def __init__(self, settings, catalog, *, queue, config=TINY_CONFIG):
        # One thread, also in training processes: threads that wait for each other are slow on busy machines.
        self.settings = settings.model_copy(update={"num_threads": 1, "device": "cpu"})
        self.catalog = catalog
        self.queue = queue
        self.config = config
        self.store = CheckpointStore(open_blobs(self.settings.blob_place))
        self.bench = Workbench(
            self.settings, self.store, ExpertPool(self.store, device="cpu"), just_written_s=0.0
        )
        self._register()

    @classmethod
    @contextmanager
    def opened(cls, data, migrated_file, **how):
        """An installation in that folder, for as long as the context lasts."""
        settings = migrated_settings_at(
            data, migrated_file, lease_s=2.0, beat_s=0.4, poll_s=0.1, stop_timeout_s=5.0
        )
        catalog, queue = Catalog(settings), DbosQueue(settings)
        try:
            yield cls(settings, catalog, queue=queue, **how)
        finally:
            queue.close()
            catalog.close()

    def _register(self):
        architecture = resolve_architecture(config=self.config)
        path = write_tiny_base(self.settings.data / "base.safetensors", config=self.config)
        saved = self.store.save_base(path, architecture.expected_tensors())
        space = saved.manifest.space
        with self.catalog.transaction() as session:
            add_base(
                session,
                name="tiny",
                architecture=None,
                config=architecture.config,
                preprocessing=architecture.preprocessing().to_dict(),
                digest=saved.digest,
                layout=space.digest,
                num_parameters=space.num_parameters,
                size_bytes=saved.manifest.size_bytes,
            )
            create_model(session, name="pets", base="tiny")

    def upload_dataset(self, members=None, *, form="tar"):
        """The digest of an archive, taken in as the api does."""
        path = colour_archive(self.settings.data / f"upload.{form}", members, form=form)
        summary = inspect_archive(path, self.bench.archive_limits)
        blob = self.store.blobs.put_file(path)
        path.unlink()
        with self.catalog.transaction() as session:
            add_dataset(
                session,
                digest=blob.digest,
                format=summary.format,
                classes=list(summary.classes),
                num_images=summary.num_images,
                size_bytes=blob.size_bytes,
            )
            record_blobs(session, [NewBlob(blob.digest, blob.size_bytes, "dataset")])
        return blob.digest

    def upload_checkpoint(self, seed=7, change=lambda tensors, base: None):
        """The digest of a fine-tuned checkpoint, spoiled by `change`."""
        base = tiny_tensors(config=self.config)
        tensors = tiny_expert_tensors(base, seed)
        change(tensors, base)
        path = self.settings.data / "upload.safetensors"
        write_safetensors(path, tensors)
        blob = self.store.blobs.put_file(path)
        path.unlink()
        return blob.digest

    def submit_training(self, task, dataset, *, model="pets", **training):
        """The id of a queued training job."""
        options = TrainingOptions.model_validate(QUICK | training)
        request = {"templates": TEMPLATES, "training": options.model_dump(mode="json")}
        return self._submit("train", task, request, model=model, dataset=dataset)

    def submit_import(
        self, task, checkpoint, *, classes=("red", "green", "blue"), dataset=None, model="pets"
    ):
        """The id of a queued import job."""
        request = {"classes": list(classes), "templates": TEMPLATES}
        return self._submit("import", task, request, model=model, dataset=dataset, checkpoint=checkpoint)

    def submit_other(self, kind):
        """The id of a queued job of that kind."""
        return self._submit(kind, "colours", {}, model="pets")

    def _submit(self, kind, task, request, *, model, **files):
        with self.catalog.transaction() as session:
            job = submit_job(session, self.queue, kind=kind, model=model, task=task, request=request, **files)
        return job.job_id

    def run(self, job_id, *, on_report=lambda progress: None):
        """The job after one attempt in this process, by an engine that remembers steps in a dict."""
        steps = {}
        stopping = Event()
        with self.catalog.transaction() as session:
            job = claim_job(session, job_id, worker="this process", max_attempts=99)

        def remember(name, step):
            if name not in steps:
                steps[name] = step()
            return steps[name]

        running = Watched(self.catalog, job, remember=remember, poll_s=0.0, stopping=stopping)
        running.on_report = on_report
        run_claimed(running, lambda context: run_job(self.bench, context), stopping=stopping)
        return self.find(job_id)

    def learn(self, job_id, **how):
        """The result of a job that succeeds."""
        job = self.run(job_id, **how)
        assert job.state == "succeeded", job.error
        return job.result

    def find(self, job_id):
        """The job now."""
        with self.catalog.snapshot() as session:
            return find_job(session, job_id)

    def read(self, query, *args, **kwargs):
        """What a catalog function reads."""
        with self.catalog.snapshot() as session:
            return query(session, *args, **kwargs)

    def execute(self, statement):
        """Changes the database behind everybody's back."""
        with self.catalog.transaction() as session:
            session.execute(text(statement))

    def events(self, job_id, kind):
        """The bodies of the job's events of one kind."""
        return [event.body for event in self.read(list_events, job_id) if event.kind == kind]

    def scratch_files(self):
        """Whatever is left in the scratch folder."""
        return sorted(path.name for path in self.settings.scratch_dir.rglob("*") if path.is_file())

    def blobs(self):
        """Every digest in the store."""
        return {blob.digest for blob in self.store.blobs.list()}


def bits_of(path: Path) -> str:
    """A digest of the tensors in a safetensors file."""
    content = hashlib.sha256()
    for name, tensor in sorted(SafeFile(path).tensors().items()):
        content.update(name.encode())
        content.update(tensor.to(torch.float64).numpy().tobytes())
    return content.hexdigest()
