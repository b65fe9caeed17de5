"""Folds a checkpoint into the head and publishes the outcome, exactly once."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from catalog.blobs import NewBlob
from catalog.doomed import DOOM_LEASE_S
from catalog.errors import StaleHeadError, SweptMeanwhileError
from catalog.job_queue import JobFailedError
from catalog.revisions import NewTask, NewTrigger, RevisionRecord, publish_revision
from catalog.tasks import find_task
from store.blobs import Blob
from store.checkpoints import FoldOutcome
from store.checkpoints import NewTask as TaskToFold
from store.errors import NotFoundError
from store.manifest import TaskEntry
from worker.jobs.assignment import Assignment
from worker.jobs.lesson import Lesson
from worker.jobs.measuring import Accuracies, measure_expert
from worker.jobs.remeasuring import Measures, measure_tasks

MAX_ROUNDS = 10
"""Folds on heads that moved meanwhile. Jobs of one model never overlap, so only rollbacks and removals move
them."""
SWEEP_PASSES_S = 1.3 * DOOM_LEASE_S / MAX_ROUNDS


@dataclass(frozen=True)
class Learned:
    """All that is known of a task before it is folded in; the files are in the job's scratch folder."""

    lesson: Lesson
    checkpoint: Path
    prototypes: Path
    accuracies: Accuracies
    cause: Literal["train", "import"]


def fold_and_publish(work: Assignment, learned: Learned) -> int:
    """The number of the revision that this job publishes.

    Folding writes blobs that nothing names until the transaction commits, so a death before it leaves only
    what a sweep removes, and a death after it is found out by `Assignment.published`.

    Raises:
        StaleAttemptError: Another worker has the job; nothing was published.
        JobFailedError: The head kept moving.
    """
    for _ in range(MAX_ROUNDS):
        head = work.head()
        prototypes, kept = _put_blobs(work, learned)
        outcome = _fold(work, learned, head=head, prototypes=prototypes)
        accuracy = measure_expert(work, learned.lesson, outcome)
        measures = measure_tasks(work, learned.lesson, outcome, head=head, accuracy=accuracy)
        work.context.report({"phase": "publish", "step": 0, "steps": 1})
        task = _new_task(work, learned, outcome=outcome, prototypes=prototypes, accuracy=accuracy, kept=kept)
        try:
            return _publish(work, learned, outcome=outcome, measures=measures, head=head, task=task)
        except StaleHeadError as error:
            work.context.log(f"{error}: folding again")
        except SweptMeanwhileError as error:
            work.context.log(f"{error}: folding again")
            _let_a_sweep_pass(work)
    raise JobFailedError(
        "The model's head keeps moving",
        detail=f"It was moved {MAX_ROUNDS} times while the task was being folded in.",
        remedy="Submit the task again when nobody rolls the model back.",
    )


def _let_a_sweep_pass(work: Assignment) -> None:
    """Waits as long as a sweep takes for what it has doomed; one that died is waited for in all rounds."""
    goes_on_at = time.monotonic() + SWEEP_PASSES_S
    while time.monotonic() < goes_on_at:
        work.context.check_cancelled()
        time.sleep(0.1)


def published_result(work: Assignment, revision: int, *, skipped: list[dict[str, str]]) -> dict[str, Any]:
    """What the job tells its user, from what the catalog says of the revision."""
    with work.context.catalog.snapshot() as session:
        task = find_task(session, work.model.name, work.job.task, revision=revision)
    trigger = task.trigger
    return {
        "model": work.model.name,
        "task": task.name,
        "revision": revision,
        "num_train": task.num_train,
        "num_test": task.num_test,
        "images_skipped": task.images_skipped,
        "skipped": skipped,
        "accuracy": {
            "base": task.accuracy_base,
            "individual": task.accuracy_individual,
            "expert": task.accuracy_expert,
        },
        "fidelity": {
            "relative_l2": trigger.relative_l2,
            "cosine": trigger.cosine,
            "density": trigger.density,
            "rescaler": trigger.rescaler,
            "bits_cleared": trigger.bits_cleared,
        },
    }


def _put_blobs(work: Assignment, learned: Learned) -> tuple[Blob, Blob | None]:
    """Prototypes and a kept checkpoint as blobs; written in each round, so that no sweep takes them."""
    blobs = work.bench.store.blobs
    keeps = learned.lesson.is_kept
    return blobs.put_file(learned.prototypes), blobs.put_file(learned.checkpoint) if keeps else None


def _fold(
    work: Assignment, learned: Learned, *, head: RevisionRecord | None, prototypes: Blob
) -> FoldOutcome:
    lesson = learned.lesson
    count = None

    def tell(done: int, total: int) -> None:
        nonlocal count
        count = count or work.counter("fuse", total, counts_images=False)
        count(done)

    store = work.bench.store
    with work.bench.pool.lease_base(work.base) as base:
        outcome = store.fold(
            base,
            parent=None if head is None else head.manifest,
            options=work.fusion_options,
            new_task=TaskToFold(work.job.task, lesson.classes, lesson.templates, prototypes.digest),
            checkpoint=learned.checkpoint,
            on_progress=tell,
        )
    for warning in outcome.warnings:
        work.context.log(warning)
    return outcome


def _publish(
    work: Assignment,
    learned: Learned,
    *,
    outcome: FoldOutcome,
    measures: Mapping[str, Measures],
    head: RevisionRecord | None,
    task: NewTask,
) -> int:
    try:
        blobs = _new_blobs(work, outcome, task)
    except NotFoundError as error:
        raise SweptMeanwhileError(f"a sweep was faster than this job: {error}") from error
    with work.context.catalog.transaction() as session:
        return publish_revision(
            session,
            model=work.model.name,
            parent=None if head is None else head.number,
            manifest=outcome.manifest_digest,
            cause=learned.cause,
            triggers=[_new_trigger(outcome, entry, measures[entry.name]) for entry in outcome.manifest.tasks],
            blobs=blobs,
            task=task,
            job_id=work.job.job_id,
            attempt=work.context.attempt,
        )


def _new_task(
    work: Assignment,
    learned: Learned,
    *,
    outcome: FoldOutcome,
    prototypes: Blob,
    accuracy: float | None,
    kept: Blob | None,
) -> NewTask:
    lesson = learned.lesson
    return NewTask(
        name=work.job.task,
        classes=lesson.classes,
        templates=lesson.templates,
        l1_norm=outcome.tasks[work.job.task].l1_norm,
        prototypes=prototypes.digest,
        prototypes_bytes=prototypes.size_bytes,
        num_train=len(lesson.train),
        num_test=len(lesson.test),
        images_skipped=lesson.images.num_rejected if lesson.images else 0,
        accuracy_individual=learned.accuracies.individual,
        accuracy_expert=accuracy,
        accuracy_base=learned.accuracies.base,
        dataset=work.job.dataset,
        checkpoint=None if kept is None else kept.digest,
        training=lesson.training,
    )


def _new_trigger(outcome: FoldOutcome, entry: TaskEntry, measured: Measures) -> NewTrigger:
    folded = outcome.tasks[entry.name]
    return NewTrigger(
        task=entry.name,
        mask=entry.mask,
        size_bytes=outcome.trigger_bytes[entry.name],
        rescaler=folded.rescaler,
        density=folded.density,
        bits_cleared=folded.bits_cleared,
        relative_l2=folded.relative_l2,
        cosine=folded.cosine,
        reference=folded.reference,
        accuracy=measured.accuracy,
        routing=measured.routing,
        unmeasured=measured.unmeasured,
    )


def _new_blobs(work: Assignment, outcome: FoldOutcome, task: NewTask) -> list[NewBlob]:
    """Every blob that the revision names, by kind."""
    kinds = {outcome.manifest_digest: "manifest", task.prototypes: "prototypes"}
    if task.checkpoint is not None:
        kinds[task.checkpoint] = "checkpoint"
    if outcome.manifest.unified is not None:
        kinds[outcome.manifest.unified] = "unified"
    for entry in outcome.manifest.tasks:
        kinds[entry.mask] = "mask"
        if entry.buffers is not None:
            kinds[entry.buffers] = "buffers"
    size = work.bench.store.blobs.size_bytes
    return [NewBlob(digest, size(digest), kind) for digest, kind in kinds.items()]
