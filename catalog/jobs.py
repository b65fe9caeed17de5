"""Jobs as their users see them: submitted, listed, followed, cancelled."""

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from catalog.actors import actor_of, owner_of, tell
from catalog.changes import count_changes
from catalog.clock import now
from catalog.datasets import require_dataset
from catalog.errors import NoSuchRowError
from catalog.job_events import add_event
from catalog.job_queue import JobQueue
from catalog.quotas import require_bytes_left, require_room
from catalog.records import to_record
from catalog.tables import JobRow, RevisionRow
from catalog.tasks import check_task_free

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = "queued", "running", "succeeded", "failed", "cancelled"
JOB_STATES = (QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED)
UNFINISHED = (QUEUED, RUNNING)


@dataclass(frozen=True)
class JobRecord:
    """A job; `error` is {title, detail, remedy} once it failed."""

    job_id: str
    kind: str
    model: str
    task: str
    state: str
    attempt: int
    num_releases: int
    cancel_requested: bool
    worker: str | None
    request: dict[str, Any]
    dataset: str | None
    checkpoint: str | None
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    key_id: str | None
    request_id: str | None

    @property
    def is_finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state not in UNFINISHED


def submit_job(
    session: Session,
    queue: JobQueue,
    *,
    kind: str,
    model: str,
    task: str,
    request: dict[str, Any],
    dataset: str | None = None,
    checkpoint: str | None = None,
) -> JobRecord:
    """The new job, queued behind the model's others; there is none if the transaction rolls back.

    Args:
        session: the caller's transaction.
        queue: the job engine.
        kind: train or import.
        model: whose task it will be.
        task: its name.
        request: all that the worker needs to know, as JSON.
        dataset: digest of the images, which stay until the job is done.
        checkpoint: digest of an uploaded checkpoint, which stays until the job is done.

    Raises:
        NoSuchRowError: no such model or data set.
        InvalidNameError: a task may not be called that.
        AlreadyExistsError: the model serves such a task.
        StillInUseError: an unfinished job is learning it.
        DatasetGoneError: the images were released.
        QuotaExceededError: the key in whose name it is done may have no more jobs, or no more bytes.
    """
    check_task_free(session, model, task)
    if dataset is not None:
        require_dataset(session, dataset)
    require_room(session, jobs=1)
    require_bytes_left(session)
    actor = actor_of(session)
    row = JobRow(
        job_id=_new_job_id(),
        kind=kind,
        model=model,
        task=task,
        request=request,
        dataset=dataset,
        checkpoint=checkpoint,
        key_id=owner_of(session),
        request_id=None if actor is None else actor.request_id,
    )
    session.add(row)
    session.flush()
    tell(session, job=row.job_id, model=model, task=task)
    add_event(session, row.job_id, kind="state", body={"state": QUEUED})
    queue.enqueue(session, row.job_id, model)
    return to_record(JobRecord, row)


def _new_job_id() -> str:
    """A UUID of version 7 (RFC 9562, method 3): later jobs have greater ones.

    For jobs of one model that came in the same second the engine goes by the id; on SQLite under Python 3.11
    its own clock knows no less than seconds.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 10**6)
    fraction = nanoseconds * 2**12 // 10**6
    return str(UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | secrets.randbits(62)))


def find_job(session: Session, job_id: str) -> JobRecord:
    """The job as it is now.

    Raises:
        NoSuchRowError: there is none.
    """
    row = session.get(JobRow, job_id, populate_existing=True)
    if row is None:
        raise NoSuchRowError(f"there is no job {job_id!r}: `condu jobs list` shows those there are")
    return to_record(JobRecord, row)


def list_jobs(
    session: Session,
    *,
    model: str | None = None,
    state: str | None = None,
    limit: int = 100,
    only: Collection[str] | None = None,
) -> list[JobRecord]:
    """The newest jobs, newest first, of one model or in one state or of some models only, if so asked."""
    query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.job_id.desc()).limit(limit)
    if model is not None:
        query = query.where(JobRow.model == model)
    if state is not None:
        query = query.where(JobRow.state == state)
    if only is not None:
        query = query.where(JobRow.model.in_(only))
    return [to_record(JobRecord, row) for row in session.scalars(query)]


def count_jobs(session: Session) -> dict[str, int]:
    """How many jobs are in each of the five states."""
    rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))
    found = {state: count for state, count in rows}  # noqa: C416 - dict() takes no rows
    return {state: found.get(state, 0) for state in JOB_STATES}


def cancel_job(session: Session, job_id: str) -> JobRecord:
    """The job as it is then: a queued one is cancelled at once, a running one soon, a finished one never.

    Neither is one whose revision is published, though its worker died before it could say so. The job engine
    need not be told: a worker that takes a cancelled job leaves it alone.

    Raises:
        NoSuchRowError: there is none.
    """
    find_job(session, job_id)
    has_published = exists().where(RevisionRow.job_id == job_id)
    queued = update(JobRow).where(JobRow.job_id == job_id, JobRow.state == QUEUED, ~has_published)
    if count_changes(session, queued.values(state=CANCELLED, cancel_requested=True, finished_at=now())) == 1:
        add_event(session, job_id, kind="state", body={"state": CANCELLED})
    else:
        session.execute(
            update(JobRow)
            .where(JobRow.job_id == job_id, JobRow.state == RUNNING)
            .values(cancel_requested=True)
        )
    return find_job(session, job_id)
