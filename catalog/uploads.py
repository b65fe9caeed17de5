"""Uploaded checkpoints: bytes that belong to the jobs that name them, and to nobody afterwards."""

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from catalog.jobs import UNFINISHED
from catalog.tables import JobRow, TaskRow


def is_upload_free(session: Session, digest: str, *, after_job: str) -> bool:
    """Whether no unfinished job but the given one needs the bytes, and no task keeps them."""
    users = select(JobRow.job_id).where(
        or_(JobRow.checkpoint == digest, JobRow.dataset == digest),
        JobRow.state.in_(UNFINISHED),
        JobRow.job_id != after_job,
    )
    keepers = select(TaskRow.task_key).where(TaskRow.checkpoint == digest)
    return session.scalars(users).first() is None and session.scalars(keepers).first() is None
