"""Blobs that a sweep removes: doomed in a committed transaction first, so that nobody names them unawares.

Storage deletes a blob whoever has just written the same bytes again; none can be asked to delete only what
nobody is about to name. Transactions of the catalog, one after the other, can tell: either the one that names
a blob comes first, and the sweep finds it named; or the one that dooms it comes first, and whoever names it
then is told to write it again, unless the sweep is done with it and the bytes are there. A row stays for a
week after its blob is gone, for an upload that began before may be as slow as that.
"""

from collections.abc import Callable, Collection, Iterable, Sequence

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from catalog.changes import in_parts
from catalog.clock import age_s, now
from catalog.errors import SweptMeanwhileError
from catalog.tables import DoomedBlobRow

DOOM_LEASE_S = 120.0
"""A sweeper that has not removed what it doomed by then never will."""
FORGOTTEN_AFTER_S = 7 * 86400.0

_CONTAINS = "condu_contains"


def look_into_store(session: Session, contains: Callable[[str], bool]) -> None:
    """Lets the session's transaction ask whether a blob is there."""
    session.info[_CONTAINS] = contains


def doom_blobs(session: Session, digests: Iterable[str], *, sweeper: str) -> set[str]:
    """Those of the blobs that the sweeper may now remove: all but those another is removing."""
    wanted = set(digests)
    for batch in in_parts(wanted):
        others = select(DoomedBlobRow.digest).where(
            DoomedBlobRow.digest.in_(batch),
            DoomedBlobRow.sweeper != sweeper,
            DoomedBlobRow.removed_at.is_(None),
            age_s(DoomedBlobRow.doomed_at) < DOOM_LEASE_S,
        )
        wanted -= set(session.scalars(others))
    for batch in in_parts(wanted):
        session.execute(delete(DoomedBlobRow).where(DoomedBlobRow.digest.in_(batch)))
    session.add_all(DoomedBlobRow(digest=digest, sweeper=sweeper) for digest in sorted(wanted))
    session.flush()
    return wanted


def note_removed(session: Session, digests: Iterable[str], *, sweeper: str) -> None:
    """Says that the sweeper will not touch the blobs any more."""
    for batch in in_parts(digests):
        ours = update(DoomedBlobRow).where(DoomedBlobRow.digest.in_(batch), DoomedBlobRow.sweeper == sweeper)
        session.execute(ours.values(removed_at=now()))


def forget_doomed(session: Session) -> None:
    """Drops the rows of blobs that were doomed so long ago that nobody is still writing them."""
    session.execute(delete(DoomedBlobRow).where(age_s(DoomedBlobRow.doomed_at) >= FORGOTTEN_AFTER_S))


def refuse_doomed(session: Session, digests: Collection[str]) -> None:
    """Nothing, when the transaction may name the blobs.

    Raises:
        SweptMeanwhileError: a sweep removes or has removed one of them: write it again, then name it.
    """
    gone: list[str] = []
    for batch in in_parts(digests):
        rows = session.execute(
            select(
                DoomedBlobRow.digest, DoomedBlobRow.removed_at, age_s(DoomedBlobRow.doomed_at) >= DOOM_LEASE_S
            ).where(DoomedBlobRow.digest.in_(batch))
        )
        settled = {digest: removed_at is not None or is_over for digest, removed_at, is_over in rows}
        there = [
            digest for digest, is_settled in settled.items() if is_settled and _contains(session, digest)
        ]
        session.execute(delete(DoomedBlobRow).where(DoomedBlobRow.digest.in_(there)))
        gone += sorted(set(settled) - set(there))
    if gone:
        raise SweptMeanwhileError(_told(gone))


def _contains(session: Session, digest: str) -> bool:
    contains = session.info.get(_CONTAINS)
    return contains is not None and contains(digest)


def _told(digests: Sequence[str]) -> str:
    more = f" and {len(digests) - 1} more" if len(digests) > 1 else ""
    return f"a sweep removed blob {digests[0]}{more} before anything named it: send the same again"
