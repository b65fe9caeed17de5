"""What jobs say: changes of state, progress and log lines, bounded so that the database stays small."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from catalog.records import to_record
from catalog.tables import JobEventRow

# A curve of 100 points is as good to look at as one of 10,000. When there are more, every second one goes, so
# that those left still span the whole job.
MAX_PROGRESS_EVENTS = 100
# Of a very long log the beginning and the end are read; the middle goes.
MAX_LOG_EVENTS = 400
KEPT_FIRST_LOG_EVENTS = 100
MAX_LOG_CHARACTERS = 4000


@dataclass(frozen=True)
class EventRecord:
    """Something that a job said; the kind is state, progress or log."""

    job_id: str
    seq: int
    at: datetime
    kind: str
    body: dict[str, Any]


def list_events(session: Session, job_id: str, *, after_seq: int = 0) -> list[EventRecord]:
    """The events after a given one, oldest first; dropped ones leave gaps in `seq`, never repeat it."""
    query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq > after_seq)
    return [to_record(EventRecord, row) for row in session.scalars(query.order_by(JobEventRow.seq))]


def add_event(session: Session, job_id: str, *, kind: str, body: dict[str, Any]) -> None:
    """Appends an event, and thins out the older ones of its kind when there are too many."""
    newest = session.scalar(select(func.max(JobEventRow.seq)).where(JobEventRow.job_id == job_id)) or 0
    session.add(JobEventRow(job_id=job_id, seq=newest + 1, kind=kind, body=body))
    session.flush()
    if kind == "progress":
        _thin_progress(session, job_id)
    elif kind == "log":
        _trim_log(session, job_id)


def _seqs(session: Session, job_id: str, kind: str) -> list[int]:
    query = select(JobEventRow.seq).where(JobEventRow.job_id == job_id, JobEventRow.kind == kind)
    return list(session.scalars(query.order_by(JobEventRow.seq)))


def _drop(session: Session, job_id: str, seqs: list[int]) -> None:
    session.execute(delete(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq.in_(seqs)))


def _thin_progress(session: Session, job_id: str) -> None:
    seqs = _seqs(session, job_id, "progress")
    if len(seqs) > MAX_PROGRESS_EVENTS:
        # The first and the newest always stay.
        _drop(session, job_id, seqs[1:-1:2])


def _trim_log(session: Session, job_id: str) -> None:
    seqs = _seqs(session, job_id, "log")
    if len(seqs) > MAX_LOG_EVENTS:
        # Half of the rest at once, so that a chatty job does not pay for a deletion with every line.
        rest = seqs[KEPT_FIRST_LOG_EVENTS:]
        _drop(session, job_id, rest[: len(rest) // 2])
