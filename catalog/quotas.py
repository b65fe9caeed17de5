"""How much a key may have: unfinished jobs, models, and bytes that it brought and no sweep has taken away."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from catalog.actors import actor_of
from catalog.errors import QuotaExceededError
from catalog.tables import ApiKeyRow, BlobRow, JobRow, ModelRow

_UNFINISHED = ("queued", "running")


@dataclass(frozen=True)
class Usage:
    """What a key has now."""

    jobs: int
    models: int
    stored_bytes: int


def usage_of(session: Session, key_id: str) -> Usage:
    """What belongs to the key: jobs that are not over, models it made, bytes that were new when it came."""
    jobs = select(func.count()).select_from(JobRow)
    models = select(func.count()).select_from(ModelRow)
    size = select(func.coalesce(func.sum(BlobRow.size_bytes), 0))
    return Usage(
        jobs=session.scalar(jobs.where(JobRow.key_id == key_id, JobRow.state.in_(_UNFINISHED))) or 0,
        models=session.scalar(models.where(ModelRow.key_id == key_id)) or 0,
        stored_bytes=int(session.scalar(size.where(BlobRow.key_id == key_id)) or 0),
    )


def require_room(session: Session, *, jobs: int = 0, models: int = 0, stored_bytes: int = 0) -> None:
    """Nothing, when the key in whose name the transaction acts may have so much more.

    Asked before something is added. The key's row is held until the transaction ends, so that two requests
    at once cannot both take the last place.

    Raises:
        QuotaExceededError: It may not; the message says which quota, and what is in use.
    """
    actor = actor_of(session)
    key_id = actor.key_id if actor is not None and actor.has_quota else None
    row = None if key_id is None else session.get(ApiKeyRow, key_id, with_for_update=True)
    if row is None:
        return
    used = usage_of(session, row.key_id)
    for what, limit, now, more in (
        ("jobs", row.max_jobs, used.jobs, jobs),
        ("models", row.max_models, used.models, models),
        ("bytes", row.max_stored_bytes, used.stored_bytes, stored_bytes),
    ):
        if limit is not None and more > 0 and now + more > limit:
            raise QuotaExceededError(what, limit=limit, used=now, wanted=more)


def require_bytes_left(session: Session) -> None:
    """Nothing, when the key has any of its bytes left; what a job will write is not known when it begins.

    Raises:
        QuotaExceededError: All of them are in use.
    """
    require_room(session, stored_bytes=1)
