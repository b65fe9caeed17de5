"""Which blobs the rows of the catalog name, with their sizes; the bytes themselves are the store's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from catalog.actors import owner_of
from catalog.quotas import require_room
from catalog.tables import BlobRow

# SQLite takes 32766 parameters in one statement; older builds 999.
_PARAMETERS_A_STATEMENT = 500


@dataclass(frozen=True)
class NewBlob:
    """A blob that was just stored; the kind is for statistics: mask, unified, prototypes, dataset, ..."""

    digest: str
    size_bytes: int
    kind: str


def record_blobs(session: Session, blobs: Sequence[NewBlob]) -> None:
    """Remembers the blobs; one that is known already stays as it is, for a digest says it all.

    Raises:
        QuotaExceededError: the key in whose name it is done may have no more bytes.
    """
    wanted = {blob.digest: blob for blob in blobs}
    known = session.scalars(select(BlobRow.digest).where(BlobRow.digest.in_(wanted)))
    for digest in known:
        del wanted[digest]
    require_room(session, stored_bytes=sum(blob.size_bytes for blob in wanted.values()))
    owner = owner_of(session)
    session.add_all(
        BlobRow(digest=blob.digest, size_bytes=blob.size_bytes, kind=blob.kind, key_id=owner)
        for blob in wanted.values()
    )
    session.flush()


def forget_blobs(session: Session, digests: Iterable[str]) -> None:
    """Drops the rows of blobs that were removed."""
    waiting = sorted(set(digests))
    while waiting:
        batch, waiting = waiting[:_PARAMETERS_A_STATEMENT], waiting[_PARAMETERS_A_STATEMENT:]
        session.execute(delete(BlobRow).where(BlobRow.digest.in_(batch)))


def blob_bytes(session: Session) -> dict[str, int]:
    """The recorded bytes of each kind of blob."""
    query = select(BlobRow.kind, func.sum(BlobRow.size_bytes)).group_by(BlobRow.kind).order_by(BlobRow.kind)
    return {kind: int(size_bytes) for kind, size_bytes in session.execute(query)}
