"""What every way of learning a task shares; only where the fine-tuned checkpoint comes from differs.

Describe -> obtain the checkpoint -> measure -> prototypes -> fold -> measure the expert -> publish -> clean
up. Each part before the fold leaves a file in the job's scratch folder, which appears whole or not at all,
and is passed over where that file is there: after a kill the next attempt goes on. On another machine the
folder is empty and the parts are done again. Whether the job has published is asked of the catalog alone.
"""

from typing import Any

from catalog.errors import CatalogUnavailableError, StaleAttemptError
from catalog.job_queue import JobContext, JobFailedError, JobFenced, JobHinderedError, JobReleased
from worker.failures import told_to_the_user
from worker.files import read_json
from worker.jobs.assignment import Assignment, read_assignment
from worker.jobs.cleaning import clean_up
from worker.jobs.images import FOLDER
from worker.jobs.lesson import Origin
from worker.jobs.measuring import make_prototypes, measure_base_and_individual
from worker.jobs.publishing import Learned, fold_and_publish, published_result
from worker.workbench import Workbench


def learn(context: JobContext, bench: Workbench, origin: Origin) -> dict[str, Any]:
    """The result of a job that teaches a model one task.

    Scratch files stay only where another attempt will go on from them.
    """
    try:
        with told_to_the_user():
            work = read_assignment(context, bench)
            return _learned(work, origin)
    except (JobReleased, JobFenced, JobHinderedError, StaleAttemptError, CatalogUnavailableError):
        raise
    except BaseException:
        bench.discard_scratch(context.job_id)
        raise
    finally:
        bench.pool.clear()


def _learned(work: Assignment, origin: Origin) -> dict[str, Any]:
    learned = None if work.published() else _prepare(work, origin)
    result: dict[str, Any] = work.context.step("publish", lambda: _publish_once(work, learned))
    clean_up(work, is_kept=origin.keeps(work))
    return result


def _prepare(work: Assignment, origin: Origin) -> Learned:
    if work.has_task():
        raise JobFailedError(
            "The model has this task already",
            detail=f"The head of model {work.model.name!r} serves a task {work.job.task!r}.",
            remedy="Submit it under another name, or remove that task first.",
        )
    work.folder.mkdir(parents=True, exist_ok=True)
    lesson = origin.describe(work)
    checkpoint = origin.obtain(work, lesson)
    accuracies = measure_base_and_individual(work, lesson, checkpoint)
    prototypes = make_prototypes(work, lesson)
    return Learned(lesson, checkpoint, prototypes, accuracies, origin.cause)


def _publish_once(work: Assignment, learned: Learned | None) -> dict[str, Any]:
    revision = work.published()
    if revision is None:
        if learned is None:
            raise RuntimeError(f"job {work.job.job_id} had published and has not: the catalog was set back")
        revision = fold_and_publish(work, learned)
    return published_result(work, revision, skipped=_skipped(work))


def _skipped(work: Assignment) -> list[dict[str, str]]:
    """The first broken images; empty where an earlier attempt had cleaned up already."""
    prepared = read_json(work.folder / FOLDER / "prepared.json") or {"rejected": []}
    return [{"name": name, "reason": reason} for name, reason in prepared["rejected"]]
