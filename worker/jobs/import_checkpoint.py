"""The `import` job: takes in a checkpoint that was fine-tuned elsewhere, from the same base."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from catalog.job_queue import JobContext, JobFailedError
from catalog.training_options import TrainingOptions
from imagesets import ImageRef
from store.bases import read_delta
from store.safefile import SafeFile
from worker.datasets.preparing import PreparedImages
from worker.jobs.assignment import Assignment
from worker.jobs.images import job_images
from worker.jobs.learning import learn
from worker.jobs.lesson import Lesson, Origin
from worker.workbench import Workbench


def import_checkpoint(context: JobContext, bench: Workbench) -> dict[str, Any]:
    """The result of an import job."""
    return learn(context, bench, Upload())


class Upload(Origin):
    """A checkpoint that the user sent; without images its prototypes are text and nothing is measured."""

    cause = "import"

    def keeps(self, work: Assignment) -> bool:  # noqa: ARG002 - the contract's
        return False

    def describe(self, work: Assignment) -> Lesson:
        classes = tuple(work.job.request["classes"])
        return Lesson(
            classes=classes,
            templates=tuple(work.job.request["templates"]),
            images=_images(work, classes),
            training=None,
            is_kept=False,
        )

    def obtain(self, work: Assignment, lesson: Lesson) -> Path:  # noqa: ARG002 - the contract's
        path = work.folder / "uploaded.safetensors"
        if not path.exists():
            work.bench.store.blobs.copy_to(work.job.checkpoint or "", path)
        # Before anything is measured: NaN, integer tensors that differ, a delta of zeros.
        with work.bench.pool.lease_base(work.base) as base:
            read_delta(base, SafeFile(path))
        return path


def _images(work: Assignment, classes: tuple[str, ...]) -> PreparedImages | None:
    if work.job.dataset is None:
        return None
    defaults = TrainingOptions.model_validate({})
    images = job_images(work, test_fraction=defaults.test_fraction, seed=defaults.seed)
    return _renumbered(images, classes)


def _renumbered(images: PreparedImages, classes: tuple[str, ...]) -> PreparedImages:
    """The images with class numbers in the order of the request; a class without any has its text alone."""
    unknown = [name for name in images.classes if name not in classes]
    if unknown:
        raise JobFailedError(
            "The data set has classes that the checkpoint has not",
            detail=f"Class {unknown[0]!r} of the data set is not among the task's {list(classes)[:20]}.",
            remedy="Name every class of the data set in the request, or leave those images out.",
        )
    number = {name: position for position, name in enumerate(classes)}
    renumbered = tuple(
        ImageRef(image.path, number[images.classes[image.label]], image.name) for image in images.images
    )
    return replace(images, classes=classes, images=renumbered)
