"""Runs the protocol: every method learns every task and is asked about all of them after each."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.continual.document import Results
from bench.continual.evaluating import Lesson
from bench.continual.findings import save_features
from bench.continual.fine_tunes import MAX_PIXELS, TunedCheckpoints
from bench.continual.meter import BACKWARD, Meter, OnProgress
from bench.continual.methods import METHODS, make_method, tuning_of
from bench.continual.methods.condu import Condu
from bench.continual.plan import Plan
from bench.continual.stage import Reference, Stage
from bench.errors import BenchError
from bench.locks import alone
from bench.machine import describe_machine
from bench.suites import Suite, SuiteTask
from catalog.job_queue import JobFailedError
from imagesets import ArchiveLimits, ImageRef
from store.blobs import FileBlobs
from store.checkpoints import CheckpointStore
from store.safefile import SafeFile, write_safetensors
from vlm.architecture import Architecture
from vlm.bases import BaseRef
from vlm.experts import ExpertPool
from worker.datasets.preparing import PreparedImages, ScreeningRules, prepare_index

OWN_FINE_TUNES = frozenset({"sequential", "wise-ft", "lwf", "zscl"})
NO_FINE_TUNES = frozenset({"zero-shot"})
LIMITS = ArchiveLimits(max_members=10_000_000, max_total_bytes=1 << 42, max_ratio=1000.0)


@dataclass(frozen=True)
class BaseFile:
    """The pre-trained model of a run: an open_clip architecture and its weights."""

    name: str
    architecture: Architecture
    weights: Path


@dataclass(frozen=True)
class Folders:
    """Where a run keeps what it need not make again: fetched and decoded images, fine-tunes, the store."""

    cache: Path

    @property
    def suites(self) -> Path:
        """Fetched packages and unpacked images."""
        return self.cache / "suites"

    @property
    def prepared(self) -> Path:
        """Decoded images."""
        return self.cache / "prepared"

    @property
    def fine_tunes(self) -> Path:
        """Fine-tuned checkpoints."""
        return self.cache / "fine-tunes"

    @property
    def store(self) -> Path:
        """Bases and revisions."""
        return self.cache / "store"

    @property
    def bases(self) -> Path:
        """Bases as files to train from."""
        return self.cache / "bases"


def run(
    plan: Plan,
    suite: Suite,
    base: BaseFile,
    *,
    methods: Sequence[str],
    cache: Path,
    out: Path,
    device: str = "auto",
    reference: Reference | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """The results document, which is in `out` as well, row by row; goes on where a killed run stopped.

    Raises:
        BenchError: A data set is not what it should be, or `out` holds another run.
    """
    meter = Meter(on_progress)
    folders = Folders(cache)
    pool = ExpertPool(CheckpointStore(FileBlobs(folders.store)), device=device)
    ref = _registered(base, pool.store, folders)
    results = Results(out, {**plan.identity(), "base": ref.digest})
    stage = Stage(
        plan=plan,
        suite=suite,
        lessons=_lessons(plan, suite, ref, folders=folders, meter=meter),
        base=ref,
        pool=pool,
        fine_tunes=TunedCheckpoints(folders.fine_tunes, device=str(pool.device), meter=meter),
        meter=meter,
        files=folders.bases,
        reference=reference,
    )
    _describe(results, stage)
    _plan_work(stage, methods, results)
    for name in methods:
        _run_method(name, stage, results)
    if any(issubclass(METHODS[name], Condu) for name in methods):
        save_features(stage, features_path(out))
    results.finish(methods)
    return results.document


def features_path(results: Path) -> Path:
    """Where the features of a run's images are kept, for the picture of them."""
    return results.with_suffix(".features.safetensors")


def _run_method(name: str, stage: Stage, results: Results) -> None:
    """All steps of one method; those asked about already are only learned again, from what is kept."""
    num_steps = len(stage.lessons)
    if all(results.has_row(name, step) for step in range(num_steps)):
        return
    method = make_method(name, stage)
    for step, lesson in enumerate(stage.lessons):
        stage.meter.words = f"{name}, task {step + 1} of {num_steps}"
        clock = _Clock(stage.fine_tunes)
        method.learn(lesson)
        if results.has_row(name, step):
            continue
        row = method.row()
        results.add_row(
            name,
            step,
            row,
            size_bytes=method.size_bytes(),
            kept_bytes=method.kept_bytes(),
            seconds=clock.seconds(),
        )
    results.add_findings(name, method.findings())


class _Clock:
    """Seconds of a step: a fine-tune counts what it took, whether it was made now, before or elsewhere."""

    def __init__(self, fine_tunes: TunedCheckpoints) -> None:
        self._fine_tunes = fine_tunes
        self._began, self._spent_s, self._used_s = time.monotonic(), fine_tunes.spent_s, fine_tunes.used_s

    def seconds(self) -> float:
        """Since the clock was made."""
        spent_here = self._fine_tunes.spent_s - self._spent_s
        used = self._fine_tunes.used_s - self._used_s
        return time.monotonic() - self._began - spent_here + used


def _registered(base: BaseFile, store: CheckpointStore, folders: Folders) -> BaseRef:
    """The base in the run's store, in float32: deltas live in digits that half precision has not."""
    tensors = SafeFile(base.weights).tensors()
    path = base.weights
    if any(tensor.is_floating_point() and tensor.element_size() < 4 for tensor in tensors.values()):
        folders.bases.mkdir(parents=True, exist_ok=True)
        path = folders.bases / f"{base.name}.float32.safetensors"
        upcast = {
            name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
        }
        write_safetensors(path, upcast)
    saved = store.save_base(path, base.architecture.expected_tensors())
    return BaseRef(base.name, saved.digest, base.architecture, base.architecture.preprocessing())


def _lessons(plan: Plan, suite: Suite, ref: BaseRef, *, folders: Folders, meter: Meter) -> tuple[Lesson, ...]:
    lessons = []
    for name in plan.tasks:
        meter.words = f"images of {name}"
        with alone(folders.suites / f"{suite.name}.lock"):  # another run may want the same images
            task = suite.load(name, cache=folders.suites, on_progress=lambda *_: meter.done(0))
            prepared = _prepared(plan, task, ref, folders=folders, meter=meter)
        lessons.append(Lesson.of(task, prepared, ref.preprocessing))
    return tuple(lessons)


def _prepared(plan: Plan, task: SuiteTask, ref: BaseRef, *, folders: Folders, meter: Meter) -> PreparedImages:
    """The task's images, decoded once for this preprocessing."""
    shots = plan.num_shots
    seed = plan.seed if shots is not None else 0  # the split is the suite's own: only the shots are drawn
    files = [_file(image) for image in (*task.images.train, *task.images.test)]
    about = json.dumps([ref.preprocessing.to_dict(), shots, seed, list(task.images.classes), files])
    folder = folders.prepared / f"{task.name}-{_short_digest(about)}"
    rules = ScreeningRules(
        limits=LIMITS,
        preprocessing=ref.preprocessing,
        max_pixels=MAX_PIXELS,
        test_fraction=0.2,
        seed=seed,
        shots=shots,
    )
    try:
        prepared = prepare_index(task.images, folder, rules, on_images=lambda *_: meter.done(0))
        prepared.require_training_images()
    except JobFailedError as error:
        raise BenchError(f"task {task.name!r}: {error.title}: {error.detail}", remedy=error.remedy) from error
    return prepared


def _file(image: ImageRef) -> tuple[str, int, int, int]:
    """What tells an image from another that stands, or once stood, under its name."""
    found = image.path.stat()
    return str(image.path), image.label, found.st_size, found.st_mtime_ns


def _describe(results: Results, stage: Stage) -> None:
    machine = describe_machine()
    lessons = stage.lessons
    results.describe(
        machine=machine,
        commit=machine["commit"],
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        training={
            lesson.name: stage.options(lesson.name, stage.plan.tuning).model_dump(mode="json")
            for lesson in lessons
        },
        training_lora={
            lesson.name: stage.options(lesson.name, "lora").model_dump(mode="json") for lesson in lessons
        },
        num_classes={lesson.name: len(lesson.classes) for lesson in lessons},
        num_train={lesson.name: len(lesson.images.train) for lesson in lessons},
        num_test={lesson.name: lesson.num_test for lesson in lessons},
        num_labels_of_union=len(stage.union),
    )


def _plan_work(stage: Stage, methods: Sequence[str], results: Results) -> None:
    """All that is left to do, for the ETA; what proves to be there already is taken off again."""
    shared: set[str] = set()
    for name in methods:
        left = [step for step in range(len(stage.lessons)) if not results.has_row(name, step)]
        if not left:
            continue
        stage.meter.plan(sum(METHODS[name].work(stage, step) for step in left))
        tuning = tuning_of(name, stage.plan.tuning)
        is_counted = name in NO_FINE_TUNES or (name not in OWN_FINE_TUNES and tuning in shared)
        if is_counted:
            continue
        shared |= {tuning} if name not in OWN_FINE_TUNES else set()
        for lesson in stage.lessons:
            options = stage.options(lesson.name, tuning)
            stage.meter.plan(options.iterations * options.batch_size * BACKWARD)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
