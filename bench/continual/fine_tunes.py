"""Fine-tuned checkpoints, made once by the worker's own training loop and shared by all methods and runs."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.continual.distilling import Distillation
from bench.continual.evaluating import Lesson
from bench.continual.meter import BACKWARD, Meter
from bench.errors import BenchError
from bench.locks import alone
from catalog.job_queue import JobFailedError
from catalog.training_options import TrainingOptions
from vlm.bases import BaseRef
from worker.files import read_json, write_json
from worker.training.loop import Task, train
from worker.training.spec import TrainingSpec

MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class TunedCheckpoint:
    """A fine-tuned checkpoint.

    Attributes:
        identity: Of what it was made from: the start, the images, the options.
        checkpoint: The file; an adapter's tensors where an adapter was trained.
        seconds: What the training took.
    """

    identity: str
    checkpoint: Path
    seconds: float


@dataclass(frozen=True)
class Ground:
    """Where fine-tuning starts and what it may change.

    Attributes:
        ref: The base, with the adapter that is trained, if one is.
        weights: The base's safetensors file.
        adapter: The adapter's frozen initialisation, if an adapter is trained.
    """

    ref: BaseRef
    weights: Path
    adapter: Path | None = None


class TunedCheckpoints:
    """The cache of fine-tuned checkpoints, a folder each, named by what they were made from.

    A killed training goes on from its last state; two runs that want the same checkpoint make it once.

    Args:
        folder: The cache.
        device: Where to train.
        meter: Told of the work.
    """

    def __init__(self, folder: Path, *, device: str, meter: Meter) -> None:
        self._folder = folder
        self._device = device
        self._meter = meter
        self._handed_out: set[str] = set()
        """What methods share is planned once, so it is taken off the plan once."""
        self.spent_s = 0.0
        """Seconds of training done here and now."""
        self.used_s = 0.0
        """Seconds that the checkpoints handed out took, whenever that was."""

    def get(
        self,
        ground: Ground,
        lesson: Lesson,
        options: TrainingOptions,
        *,
        start: TunedCheckpoint | None = None,
        distillation: Distillation | None = None,
    ) -> TunedCheckpoint:
        """The base, or an earlier fine-tune, trained on the lesson.

        Raises:
            BenchError: The training diverged.
        """
        recipe = _recipe(ground, lesson, options, start=start, distillation=distillation)
        identity = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        folder = self._folder / identity[:32]
        folder.mkdir(parents=True, exist_ok=True)
        work = options.iterations * options.batch_size * BACKWARD
        with alone(folder / "lock"):
            if (folder / "fine_tuned.safetensors").exists():
                self._meter.plan(0 if identity in self._handed_out else -work)
            else:
                write_json(folder / "recipe.json", recipe)
                spec = _spec(ground, lesson, options, start=start, folder=folder, device=self._device)
                self._train(spec, lesson, work, distillation=distillation)
        self._handed_out.add(identity)
        seconds = float((read_json(folder / "seconds.json") or {"seconds": 0.0})["seconds"])
        self.used_s += seconds
        return TunedCheckpoint(identity, folder / "fine_tuned.safetensors", seconds)

    def _train(
        self, spec: TrainingSpec, lesson: Lesson, work: int, *, distillation: Distillation | None
    ) -> None:
        clock = _Clock(spec.folder / "seconds.json", self._meter, work, spec.options.iterations)
        task = Task(lesson.pictures, lesson.images.train, lesson.classes)
        regulariser = distillation.begin(spec) if distillation is not None else None
        try:
            train(
                spec,
                task,
                report=clock.report,
                is_stopping=lambda: False,
                regulariser=regulariser,
            )
        except JobFailedError as error:
            raise BenchError(
                f"{error.title} on task {lesson.name!r}: {error.detail}",
                remedy="lower its learning rate with --training learning_rate=...; what is finished is kept",
            ) from error
        finally:
            self.spent_s += clock.stop()
        spec.state.unlink(missing_ok=True)


class _Clock:
    """Adds up the seconds of a training over its kills, and tells the meter."""

    def __init__(self, path: Path, meter: Meter, work: int, iterations: int) -> None:
        self._path = path
        self._meter = meter
        self._work = work / iterations
        self._before = float((read_json(path) or {"seconds": 0.0})["seconds"])
        self._began = time.monotonic()
        self._told = 0

    def report(self, progress: Mapping[str, float]) -> None:
        """Takes a progress report of the training loop."""
        step = int(progress["step"])
        self._meter.done(round(step * self._work) - round(self._told * self._work))
        self._told = step
        self._save()

    def stop(self) -> float:
        """Seconds since the clock was made."""
        self._save()
        return time.monotonic() - self._began

    def _save(self) -> None:
        write_json(self._path, {"seconds": self._before + time.monotonic() - self._began})


def _spec(
    ground: Ground,
    lesson: Lesson,
    options: TrainingOptions,
    *,
    start: TunedCheckpoint | None,
    folder: Path,
    device: str,
) -> TrainingSpec:
    cache = lesson.images.cache
    return TrainingSpec(
        architecture=ground.ref.architecture,
        preprocessing=ground.ref.preprocessing,
        base=ground.weights if start is None or ground.adapter is not None else start.checkpoint,
        adapter=ground.adapter if start is None or ground.adapter is None else start.checkpoint,
        images=folder if cache is None else cache,  # the pictures are handed over as they are
        max_pixels=MAX_PIXELS,
        template=lesson.task.templates[0],
        options=options,
        device=device,
        num_threads=None,
        folder=folder,
    )


def _recipe(
    ground: Ground,
    lesson: Lesson,
    options: TrainingOptions,
    *,
    start: TunedCheckpoint | None,
    distillation: Distillation | None,
) -> dict[str, Any]:
    images = [
        [lesson.images.images[position].name, lesson.images.images[position].label]
        for position in lesson.images.train
    ]
    return {
        "architecture": ground.ref.architecture.digest,
        "preprocessing": ground.ref.preprocessing.to_dict(),
        "base": ground.ref.digest,
        "adapter": None if ground.ref.adapter is None else ground.ref.adapter.digest,
        "start": None if start is None else start.identity,
        "distillation": None if distillation is None else distillation.identity(),
        "classes": list(lesson.classes),
        "template": lesson.task.templates[0],
        "images": hashlib.sha256(json.dumps(images).encode()).hexdigest(),
        "pixels": _pixels_digest(lesson),
        # Without defaults, so that an option that is added later leaves what was made before it valid.
        "options": options.model_dump(mode="json", exclude_defaults=True),
        "torch": torch.__version__,
    }


def _pixels_digest(lesson: Lesson) -> str | None:
    """Of the decoded pictures, so that other images under the same names are another recipe."""
    if lesson.images.cache is None:
        return None
    with lesson.images.cache.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
