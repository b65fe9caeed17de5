"""Uploaded archives of images, by digest.

The images are there for the job that learns from them. Afterwards the row stays, as the provenance of the
task, and the bytes may be swept, unless the user keeps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from catalog.actors import owner_of, tell
from catalog.clock import now
from catalog.errors import DatasetGoneError, NoSuchRowError, StillInUseError
from catalog.records import to_record
from catalog.tables import DatasetRow, JobRow


@dataclass(frozen=True)
class DatasetRecord:
    """An uploaded archive; `released_at` says since when its bytes may be gone."""

    digest: str
    format: str
    classes: tuple[str, ...]
    num_images: int
    size_bytes: int
    created_at: datetime
    is_kept: bool
    released_at: datetime | None
    key_id: str | None


def add_dataset(
    session: Session,
    *,
    digest: str,
    format: str,  # noqa: A002 - the word that the API uses for it
    classes: Sequence[str],
    num_images: int,
    size_bytes: int,
) -> DatasetRecord:
    """The data set; uploading one again brings a released one back and starts its time anew."""
    row = session.get(DatasetRow, digest)
    if row is None:
        row = DatasetRow(digest=digest, key_id=owner_of(session))
        session.add(row)
    tell(session, dataset=digest)
    row.format = format
    row.classes = list(classes)
    row.num_images = num_images
    row.size_bytes = size_bytes
    row.released_at = None
    row.created_at = session.scalars(select(now())).one()
    session.flush()
    return to_record(DatasetRecord, row)


def find_dataset(session: Session, digest: str) -> DatasetRecord:
    """The data set of that digest, released or not.

    Raises:
        NoSuchRowError: it was never uploaded.
    """
    row = session.get(DatasetRow, digest, populate_existing=True)
    if row is None:
        raise NoSuchRowError(f"there is no data set {digest}: upload it with PUT /v1/datasets")
    return to_record(DatasetRecord, row)


def require_dataset(session: Session, digest: str) -> DatasetRecord:
    """The data set of that digest, with its bytes still there.

    Raises:
        NoSuchRowError: it was never uploaded.
        DatasetGoneError: it was released.
    """
    record = find_dataset(session, digest)
    if record.released_at is not None:
        raise DatasetGoneError(
            f"the images of data set {digest} were released on {record.released_at:%Y-%m-%d}, after the job "
            "that used them: upload them again, and set training.keep to keep them"
        )
    return record


def list_datasets(session: Session) -> list[DatasetRecord]:
    """All data sets, newest first."""
    query = select(DatasetRow).order_by(DatasetRow.created_at.desc(), DatasetRow.digest)
    return [to_record(DatasetRecord, row) for row in session.scalars(query)]


def keep_dataset(session: Session, digest: str) -> None:
    """Keeps the bytes from now on, after jobs and for ever; undone by `delete_dataset`."""
    require_dataset(session, digest)
    session.execute(update(DatasetRow).where(DatasetRow.digest == digest).values(is_kept=True))


def release_dataset(session: Session, digest: str, *, after_job: str) -> bool:
    """Whether the bytes may go now; a kept data set, or one that another unfinished job needs, stays.

    Args:
        digest: the data set.
        after_job: the job that is done with it, which does not hold it any more.
    """
    record = find_dataset(session, digest)
    if record.is_kept or _unfinished_users(session, digest, but=after_job):
        return False
    session.execute(
        update(DatasetRow)
        .where(DatasetRow.digest == digest, DatasetRow.released_at.is_(None))
        .values(released_at=now())
    )
    return True


def delete_dataset(session: Session, digest: str) -> None:
    """Forgets a data set, kept or not; its bytes stay until the sweeper comes.

    Raises:
        NoSuchRowError: there is none of that digest.
        StillInUseError: an unfinished job learns from it.
    """
    find_dataset(session, digest)
    users = _unfinished_users(session, digest)
    if users:
        raise StillInUseError(
            f"data set {digest} is being used by job {users[0]}: cancel it or wait for it first"
        )
    session.delete(session.get_one(DatasetRow, digest))
    session.flush()


def _unfinished_users(session: Session, digest: str, *, but: str | None = None) -> list[str]:
    query = select(JobRow.job_id).where(JobRow.dataset == digest, JobRow.state.in_(("queued", "running")))
    return [job_id for job_id in session.scalars(query) if job_id != but]
