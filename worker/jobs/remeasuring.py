"""After a fusion: how good each task's expert is now, and which experts its images are routed to.

The new task's held-out images are at hand. An earlier task's are where its data set was kept: the archive is
unpacked once more and the same images are held out. What was found stands in the job's scratch folder under
the folded revision's digest, so that after a kill the next attempt measures only what is missing, and it goes
into the catalog in the transaction that publishes the revision. Nothing here ever fails the job: what cannot
be measured has a reason instead.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from catalog.datasets import find_dataset
from catalog.errors import NoSuchRowError
from catalog.job_queue import JobFailedError
from catalog.revisions import RevisionRecord
from catalog.tasks import TaskRecord, revision_tasks
from catalog.training_options import TrainingOptions
from imagesets import split, unpack_archive
from store.checkpoints import FoldOutcome
from vlm.evaluation import evaluate
from vlm.features import Batch, batched
from vlm.prediction import Predictor
from vlm.routing_summary import RoutingSummary
from worker.datasets.preparing import PreparedImages, ScreeningRules, prepare_images
from worker.failures import told_to_the_user
from worker.files import read_json, write_json
from worker.jobs.assignment import Assignment
from worker.jobs.lesson import Lesson

PHASE = "remeasure"
MARKER_NAME = "remeasured.json"

NOTHING_HELD_OUT = "no images of it were held out, so there is nothing to measure on"
NOT_KEPT = "its images were not kept: a task learned with `keep` is measured again at every fusion"
DELETED = "its images were kept and have been deleted since"


@dataclass(frozen=True)
class Measures:
    """What is known of one task's expert in the folded revision.

    Attributes:
        accuracy: Top-1 in percent on its held-out images.
        routing: Where those go where no task is named, as `RoutedPictures.to_dict` gives it.
        unmeasured: Why there is no accuracy; None where there is one.
    """

    accuracy: float | None = None
    routing: dict[str, Any] | None = None
    unmeasured: str | None = None


class _Revision:
    """A folded revision that tasks are measured on.

    Args:
        work: The job.
        outcome: The revision, written and not yet published.
    """

    def __init__(self, work: Assignment, outcome: FoldOutcome) -> None:
        self._work, self._manifest, self._digest = work, outcome.manifest, outcome.manifest_digest
        self._predictor = Predictor(work.bench.pool)
        self._path = work.folder / MARKER_NAME
        found = read_json(self._path) or {"manifest": None, "tasks": {}}
        self._known = found["tasks"] if found["manifest"] == self._digest else {}

    def known(self, task: str) -> Measures | None:
        """What this attempt or an earlier one has measured."""
        return Measures(**self._known[task]) if task in self._known else None

    def note(self, task: str, measures: Measures) -> Measures:
        """Have the measures found again by the next attempt."""
        self._known[task] = asdict(measures)
        write_json(self._path, {"manifest": self._digest, "tasks": self._known})
        return measures

    def measure(self, task: str, batches: Iterable[Batch], count: Callable[[int], None]) -> Measures:
        """Accuracy and routing of a task, each picture decoded once for both."""
        entry, pool, base = self._manifest.task(task), self._work.bench.pool, self._work.base
        summary = self._summary()
        # The base is leased to the end: where memory is short, each batch would load it again.
        with pool.lease(base, None, None), pool.lease(base, self._manifest, task) as expert:
            accuracy = evaluate(
                expert.model,
                expert.tokenizer,
                self._routed(task, batches, summary),
                classes=entry.classes,
                templates=entry.templates,
                on_progress=count,
            )
        return Measures(accuracy, _routing(summary, task))

    def route(self, task: str, batches: Iterable[Batch]) -> dict[str, Any] | None:
        """Routing of a task whose accuracy is known."""
        summary = self._summary()
        with self._work.bench.pool.lease(self._work.base, None, None):
            for _ in self._routed(task, batches, summary):
                self._work.context.check_cancelled()
        return _routing(summary, task)

    def _summary(self) -> RoutingSummary:
        return RoutingSummary([entry.name for entry in self._manifest.tasks])

    def _routed(self, task: str, batches: Iterable[Batch], summary: RoutingSummary) -> Iterator[Batch]:
        for pictures, numbers in batches:
            summary.add_all(task, self._predictor.route(self._work.base, self._manifest, pictures))
            yield pictures, numbers


def measure_tasks(
    work: Assignment,
    lesson: Lesson,
    outcome: FoldOutcome,
    *,
    head: RevisionRecord | None,
    accuracy: float | None,
) -> dict[str, Measures]:
    """What can be measured of every task of the folded revision, by name.

    Args:
        work: The job.
        lesson: The new task.
        outcome: The folded revision.
        head: The revision that the new task was folded into.
        accuracy: The new task's, which was measured already.
    """
    revision = _Revision(work, outcome)
    found = {work.job.task: _new_task(work, lesson, revision, accuracy=accuracy)}
    waiting = []
    for task in _tasks_of(work, head):
        known = revision.known(task.name) or _unmeasurable(work, task)
        if known is None:
            waiting.append(task)
        else:
            found[task.name] = known
    count, done = work.counter(PHASE, sum(task.num_test for task in waiting)), 0
    for task in waiting:
        found[task.name] = _measure_again(work, task, revision, count=_counting_on(count, done))
        done += task.num_test
    return found


def _new_task(work: Assignment, lesson: Lesson, revision: _Revision, *, accuracy: float | None) -> Measures:
    if not lesson.test:
        return Measures(unmeasured=NOTHING_HELD_OUT)
    task = work.job.task
    known = revision.known(task)
    if known is not None:
        return known
    routing = revision.route(task, lesson.batches(work, lesson.test))
    return revision.note(task, Measures(accuracy, routing))


def _tasks_of(work: Assignment, head: RevisionRecord | None) -> list[TaskRecord]:
    if head is None:
        return []
    with work.context.catalog.snapshot() as session:
        return revision_tasks(session, work.model.name, head.number)


def _unmeasurable(work: Assignment, task: TaskRecord) -> Measures | None:
    """Why an earlier task cannot be measured, where its images are not there."""
    if task.num_test == 0 or task.dataset is None:
        return Measures(unmeasured=NOTHING_HELD_OUT)
    with work.context.catalog.snapshot() as session:
        try:
            is_kept = find_dataset(session, task.dataset).is_kept
        except NoSuchRowError:
            return Measures(unmeasured=DELETED)
    return None if is_kept else Measures(unmeasured=NOT_KEPT)


def _measure_again(
    work: Assignment, task: TaskRecord, revision: _Revision, *, count: Callable[[int], None]
) -> Measures:
    try:
        with told_to_the_user(), _held_out(work, task) as batches:
            measures = revision.note(task.name, revision.measure(task.name, batches, count))
    except JobFailedError as error:
        reason = f"it could not be measured again: {error.title}: {error.detail}"
        work.context.log(f"task {task.name!r}: {reason}")
        return Measures(unmeasured=reason)
    before = "" if task.accuracy_expert is None else f", {task.accuracy_expert:.1f} % at its own step"
    work.context.log(f"task {task.name!r}: accuracy {measures.accuracy:.1f} % now{before}")
    return measures


@contextmanager
def _held_out(work: Assignment, task: TaskRecord) -> Iterator[Iterator[Batch]]:
    """The task's held-out images as they were at its own step; unpacked for as long as the context lasts.

    Raises:
        JobFailedError: They are not the images that were held out then.
        NotFoundError: The archive is gone.
    """
    folder = work.folder / "held-out"
    shutil.rmtree(folder, ignore_errors=True)  # left there by an attempt that was killed
    folder.mkdir(parents=True)
    try:
        archive = folder / "archive"
        work.bench.store.blobs.copy_to(task.dataset or "", archive)
        images = _images_of(work, task, archive)
        if len(images.test) != task.num_test or not set(images.classes) <= set(task.classes):
            raise JobFailedError(
                "Its data set is not what it was",
                detail=f"It holds out {len(images.test)} images of {len(images.classes)} classes; "
                f"{task.num_test} of {len(task.classes)} were held out when the task was learned.",
                remedy="Learn the task again with `keep`.",
            )
        # An import has its classes in the order of its request.
        numbers = torch.tensor([task.classes.index(name) for name in images.classes])
        pictures = images.pictures(work.base.preprocessing, max_pixels=work.bench.settings.max_image_pixels)
        yield ((batch, numbers[labels]) for batch, labels in batched(pictures.examples(images.test)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _images_of(work: Assignment, task: TaskRecord, archive: Path) -> PreparedImages:
    """The archive's images; where none was broken, only those held out, and none of the others is decoded."""
    defaults = TrainingOptions.model_validate({})
    training = task.training or {}
    rules = ScreeningRules(
        limits=work.bench.archive_limits,
        preprocessing=work.base.preprocessing,
        max_pixels=work.bench.settings.max_image_pixels,
        test_fraction=training.get("test_fraction", defaults.test_fraction),
        seed=training.get("seed", defaults.seed),
    )
    if task.images_skipped:  # the draw was among the others, and only decoding tells which these are
        return prepare_images(
            archive, archive.parent / "images", rules, on_images=lambda *_: work.context.check_cancelled()
        )
    unpacked = unpack_archive(
        archive,
        archive.parent / "unpacked",
        rules.limits,
        on_progress=lambda *_: work.context.check_cancelled(),
    )
    held_out = split(unpacked, test_fraction=rules.test_fraction, seed=rules.seed).test
    return PreparedImages(
        classes=unpacked.classes,
        images=held_out,
        train=(),
        test=tuple(range(len(held_out))),
        rejected=(),
        num_rejected=0,
        cache=None,
    )


def _counting_on(count: Callable[[int], None], done: int) -> Callable[[int], None]:
    return lambda step: count(done + step)


def _routing(summary: RoutingSummary, task: str) -> dict[str, Any] | None:
    routed = summary.of(task)
    return None if routed is None else routed.to_dict()
