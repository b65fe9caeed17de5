"""The `train` job: fine-tunes the base on the images of a data set."""

from pathlib import Path
from typing import Any

from catalog.job_queue import JobContext
from catalog.training_options import TrainingOptions
from store.manifest import BaseManifest
from worker.jobs.assignment import Assignment
from worker.jobs.images import FOLDER, job_images
from worker.jobs.learning import learn
from worker.jobs.lesson import Lesson, Origin
from worker.training.child import run_training
from worker.training.spec import TrainingSpec
from worker.workbench import Workbench


def train(context: JobContext, bench: Workbench) -> dict[str, Any]:
    """The result of a training job."""
    return learn(context, bench, FineTuning())


class FineTuning(Origin):
    """A checkpoint trained here, from the base, on this task alone."""

    cause = "train"

    def keeps(self, work: Assignment) -> bool:
        return _options(work).keep

    def describe(self, work: Assignment) -> Lesson:
        options = _options(work)
        images = job_images(work, test_fraction=options.test_fraction, seed=options.seed, shots=options.shots)
        images.require_training_images()
        return Lesson(
            classes=images.classes,
            templates=tuple(work.job.request["templates"]),
            images=images,
            training=options.model_dump(mode="json"),
            is_kept=options.keep,
        )

    def obtain(self, work: Assignment, lesson: Lesson) -> Path:
        spec = _spec(work, lesson)
        work.bench.pool.clear()  # while it trains, the child has the memory
        run_training(
            spec,
            on_progress=lambda progress: work.context.report({"phase": "train", **progress}),
            check_cancelled=work.context.check_cancelled,
        )
        return spec.result


def _options(work: Assignment) -> TrainingOptions:
    return TrainingOptions(**work.job.request["training"])


def _spec(work: Assignment, lesson: Lesson) -> TrainingSpec:
    bench = work.bench
    adapter = work.base.adapter
    return TrainingSpec(
        architecture=work.base.architecture,
        preprocessing=work.base.preprocessing,
        base=_weights(work, work.base.digest, "base.safetensors"),
        images=work.folder / FOLDER / "prepared.json",
        max_pixels=bench.settings.max_image_pixels,
        template=lesson.templates[0],
        options=_options(work),
        device=str(bench.pool.device),
        num_threads=bench.settings.num_threads,
        folder=work.folder,
        adapter=None if adapter is None else _weights(work, adapter.digest, "adapter.safetensors"),
        processes=min(bench.settings.training_processes, _options(work).batch_size),
    )


def _weights(work: Assignment, base: str, name: str) -> Path:
    """A stored base as a file in the job's folder."""
    path, blobs = work.folder / name, work.bench.store.blobs
    if not path.exists():
        blobs.copy_to(BaseManifest.from_json(blobs.read_checked(base)).weights, path)
    return path
