"""What must stay in the store, and which revisions may be let go."""

from dataclasses import dataclass

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from catalog.clock import age_s, now
from catalog.jobs import RUNNING, UNFINISHED
from catalog.records import to_record
from catalog.revisions import RevisionRecord
from catalog.tables import BaseRow, DatasetRow, JobRow, ModelRow, RevisionRow, TaskRow, TriggerRow

_WEEK_S = 7 * 86400.0

RevisionKey = tuple[str, int]


@dataclass(frozen=True)
class LiveRoots:
    """Digests of what must stay: manifests and bases with all they name, and single blobs."""

    manifests: frozenset[str]
    bases: frozenset[str]
    others: frozenset[str]


def live_roots(
    session: Session, *, keep_revisions: int = 1, upload_ttl_s: float = _WEEK_S, grace_s: float = 0.0
) -> LiveRoots:
    """What the sweeper must not touch.

    That is: every base, and what every model's adapters start from; of every model the newest
    `keep_revisions` unexpired revisions on the line from its head to its first; the data sets and uploads of
    unfinished jobs; kept data sets and checkpoints; uploads younger than `upload_ttl_s`. Revisions that
    expired less than `grace_s` ago stay for their last readers.
    """
    recent = _recently_expired(session, grace_s)
    live = kept_revisions(session, keep_revisions=keep_revisions) | recent
    rows = session.scalars(select(RevisionRow)).all()
    return LiveRoots(
        manifests=frozenset(row.manifest for row in rows if (row.model, row.number) in live),
        bases=frozenset(session.scalars(select(BaseRow.digest))) | _adapters(session),
        others=frozenset(
            _live_datasets(session, upload_ttl_s) | _job_uploads(session) | _kept_checkpoints(session, live)
        ),
    )


def all_roots(session: Session) -> LiveRoots:
    """All that a copy of the installation needs: what any revision, base, job or data set still has."""
    rows = session.scalars(select(RevisionRow).where(RevisionRow.expired_at.is_(None))).all()
    usable = {(row.model, row.number) for row in rows}
    datasets = session.scalars(select(DatasetRow.digest).where(DatasetRow.released_at.is_(None)))
    return LiveRoots(
        manifests=frozenset(row.manifest for row in rows),
        bases=frozenset(session.scalars(select(BaseRow.digest))) | _adapters(session),
        others=frozenset(datasets)
        | _job_uploads(session, unpublished=True)
        | _kept_checkpoints(session, usable),
    )


def longest_running_s(session: Session) -> float:
    """How long ago the first of the jobs that run now was started: what they wrote is younger; 0 for none."""
    query = select(func.max(age_s(JobRow.started_at))).where(JobRow.state == RUNNING)
    return session.scalar(query) or 0.0


def kept_revisions(session: Session, *, keep_revisions: int) -> set[RevisionKey]:
    """The newest unexpired revisions on each model's line from head to first, the head always among them."""
    if keep_revisions < 1:
        raise ValueError(f"keep_revisions is {keep_revisions}: at least the head must stay")
    parents = {
        (row.model, row.number): row
        for row in session.scalars(select(RevisionRow).where(RevisionRow.expired_at.is_(None)))
    }
    kept: set[RevisionKey] = set()
    for model, head in session.execute(select(ModelRow.name, ModelRow.head_revision)):
        number = head
        for _ in range(keep_revisions):
            if number is None or (model, number) not in parents:
                break
            kept.add((model, number))
            number = parents[model, number].parent
    return kept


def expire_revisions(session: Session, *, keep_revisions: int = 1) -> list[RevisionRecord]:
    """Marks all revisions but the kept ones as expired; returns those it newly marked."""
    kept = kept_revisions(session, keep_revisions=keep_revisions)
    going = [
        (row.model, row.number)
        for row in session.scalars(select(RevisionRow).where(RevisionRow.expired_at.is_(None)))
        if (row.model, row.number) not in kept
    ]
    for model, number in going:
        session.execute(
            update(RevisionRow)
            .where(RevisionRow.model == model, RevisionRow.number == number)
            .values(expired_at=now())
        )
    expired = (session.get_one(RevisionRow, key, populate_existing=True) for key in going)
    return [to_record(RevisionRecord, row) for row in expired]


def expire_datasets(session: Session, *, upload_ttl_s: float = _WEEK_S) -> list[str]:
    """Releases data sets older than that, which nobody keeps or is learning from; returns their digests."""
    old = select(DatasetRow.digest).where(
        DatasetRow.released_at.is_(None), ~DatasetRow.is_kept, age_s(DatasetRow.created_at) >= upload_ttl_s
    )
    going = sorted(set(session.scalars(old)) - _job_uploads(session))
    session.execute(update(DatasetRow).where(DatasetRow.digest.in_(going)).values(released_at=now()))
    return going


def _adapters(session: Session) -> frozenset[str]:
    adapters = session.scalars(select(ModelRow.adapter).where(ModelRow.adapter.is_not(None)))
    return frozenset(adapter for adapter in adapters if adapter is not None)


def _recently_expired(session: Session, grace_s: float) -> set[RevisionKey]:
    query = select(RevisionRow.model, RevisionRow.number).where(
        RevisionRow.expired_at.is_not(None), age_s(RevisionRow.expired_at) < grace_s
    )
    return {(model, number) for model, number in session.execute(query)}


def _live_datasets(session: Session, upload_ttl_s: float) -> set[str]:
    query = select(DatasetRow.digest).where(
        DatasetRow.released_at.is_(None),
        or_(DatasetRow.is_kept, age_s(DatasetRow.created_at) < upload_ttl_s),
    )
    return set(session.scalars(query))


def _job_uploads(session: Session, *, unpublished: bool = False) -> set[str]:
    """What jobs that are not finished need; those alone that have not published, if so asked."""
    query = select(JobRow.dataset, JobRow.checkpoint).where(JobRow.state.in_(UNFINISHED))
    if unpublished:
        published = select(RevisionRow.job_id).where(RevisionRow.job_id.is_not(None))
        query = query.where(JobRow.job_id.not_in(published))
    found: set[str | None] = set()
    for dataset, checkpoint in session.execute(query):
        found |= {dataset, checkpoint}
    return {digest for digest in found if digest is not None}


def _kept_checkpoints(session: Session, live: set[RevisionKey]) -> set[str]:
    query = (
        select(TaskRow.checkpoint, TriggerRow.model, TriggerRow.revision)
        .join(TriggerRow, TriggerRow.task_key == TaskRow.task_key)
        .where(TaskRow.checkpoint.is_not(None))
    )
    return {
        checkpoint
        for checkpoint, model, number in session.execute(query)
        if checkpoint is not None and (model, number) in live
    }
