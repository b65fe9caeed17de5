"""A job in a worker's hands: started, fenced, finished, given back.

Every start counts `attempt` up by one. Whatever is written for a job holds it to the attempt that writes, so
a worker that was taken for dead while it only slept finds itself fenced out.
"""

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from catalog.changes import count_changes
from catalog.clock import now
from catalog.errors import StaleAttemptError
from catalog.job_events import MAX_LOG_CHARACTERS, add_event
from catalog.jobs import CANCELLED, FAILED, QUEUED, RUNNING, SUCCEEDED, UNFINISHED, JobRecord, find_job
from catalog.tables import JobRow, RevisionRow


def claim_job(session: Session, job_id: str, *, worker: str, max_attempts: int) -> JobRecord | None:
    """The job, now running here under a new attempt; None when there is nothing to run.

    Nothing is to be run when the job is finished or gone, when its cancelling was asked for (it is cancelled
    then), or when it was started too often (it has failed then).
    """
    claim = (
        update(JobRow)
        .where(JobRow.job_id == job_id, JobRow.state.in_(UNFINISHED))
        .values(
            state=RUNNING,
            attempt=JobRow.attempt + 1,
            worker=worker,
            started_at=func.coalesce(JobRow.started_at, now()),
        )
    )
    if count_changes(session, claim) != 1:
        return None
    job = find_job(session, job_id)
    num_lost = job.attempt - job.num_releases - 1
    published = published_revision(session, job_id)
    # Once its revision is published the job cannot be cancelled or fail, whatever its worker met later.
    if job.cancel_requested and published is None:
        finish_job(session, job_id, attempt=job.attempt, state=CANCELLED)
        return None
    if num_lost >= max_attempts:
        _give_up(session, job, num_lost=num_lost, published=published)
        return None
    add_event(
        session, job_id, kind="state", body={"state": RUNNING, "attempt": job.attempt, "worker": worker}
    )
    return job


def published_revision(session: Session, job_id: str) -> int | None:
    """The number of the revision that the job published, if it did."""
    return session.scalars(select(RevisionRow.number).where(RevisionRow.job_id == job_id)).one_or_none()


def _give_up(session: Session, job: JobRecord, *, num_lost: int, published: int | None) -> None:
    if published is not None:
        result = {"revision": published}
        finish_job(session, job.job_id, attempt=job.attempt, state=SUCCEEDED, result=result)
        return
    error = {
        "title": f"The job was given up after {num_lost} attempts",
        "detail": f"Its worker died {num_lost} times while it ran, without an error that could be recorded.",
        "remedy": "Look for the reason in the worker's log (often: out of memory); then submit the job "
        "again, with a smaller batch_size or on a larger machine.",
    }
    finish_job(session, job.job_id, attempt=job.attempt, state=FAILED, error=error)


def fence_job(session: Session, job_id: str, *, attempt: int | None) -> None:
    """Nothing, when the attempt owns the job; the job's row is held until the transaction ends.

    Raises:
        StaleAttemptError: another attempt owns it, or it is finished.
    """
    ours = update(JobRow).where(JobRow.job_id == job_id, JobRow.attempt == attempt, JobRow.state == RUNNING)
    if count_changes(session, ours.values(attempt=attempt)) != 1:
        raise StaleAttemptError(
            f"attempt {attempt} of job {job_id} is over or another worker has the job: nothing was changed"
        )


def finish_job(
    session: Session,
    job_id: str,
    *,
    attempt: int,
    state: str,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> None:
    """Ends the job as succeeded, failed or cancelled.

    Raises:
        StaleAttemptError: another attempt owns it, or it is finished.
    """
    fence_job(session, job_id, attempt=attempt)
    session.execute(
        update(JobRow)
        .where(JobRow.job_id == job_id)
        .values(state=state, result=result, error=error, worker=None, finished_at=now())
    )
    body: dict[str, Any] = {"state": state, "attempt": attempt}
    if error is not None:
        body["error"] = error
    add_event(session, job_id, kind="state", body=body)


def record_progress(
    session: Session, job_id: str, *, attempt: int, progress: dict[str, Any], as_event: bool
) -> None:
    """Shows how far the job is; as an event, it also becomes a point of the job's curve.

    Raises:
        StaleAttemptError: another attempt owns it, or it is finished.
    """
    fence_job(session, job_id, attempt=attempt)
    session.execute(update(JobRow).where(JobRow.job_id == job_id).values(progress=progress))
    if as_event:
        add_event(session, job_id, kind="progress", body=progress)


def record_log(session: Session, job_id: str, *, attempt: int, text: str) -> None:
    """Adds a line to the job's log.

    Raises:
        StaleAttemptError: another attempt owns it, or it is finished.
    """
    fence_job(session, job_id, attempt=attempt)
    shown = text if len(text) <= MAX_LOG_CHARACTERS else text[: MAX_LOG_CHARACTERS - 3] + "..."
    add_event(session, job_id, kind="log", body={"text": shown})


def requeue_jobs(session: Session, worker: str, *, num_releases: int) -> list[str]:
    """Takes the worker's running jobs from it; returns them.

    Args:
        session: the transaction in which the job engine resumes them, too.
        worker: who has them.
        num_releases: 1 when the worker gives them back itself, which is no failure; 0 when it died.
    """
    job_ids = list(
        session.scalars(select(JobRow.job_id).where(JobRow.worker == worker, JobRow.state == RUNNING))
    )
    for job_id in job_ids:
        _requeue(session, job_id, num_releases)
    return job_ids


def requeue_job(session: Session, job_id: str, *, attempt: int, num_releases: int) -> None:
    """Takes one running job from its worker; the arguments are those of `requeue_jobs`.

    Raises:
        StaleAttemptError: another attempt owns it, or it is finished.
    """
    fence_job(session, job_id, attempt=attempt)
    _requeue(session, job_id, num_releases)


def _requeue(session: Session, job_id: str, num_releases: int) -> None:
    session.execute(
        update(JobRow)
        .where(JobRow.job_id == job_id)
        .values(state=QUEUED, worker=None, num_releases=JobRow.num_releases + num_releases)
    )
    add_event(session, job_id, kind="state", body={"state": QUEUED})
