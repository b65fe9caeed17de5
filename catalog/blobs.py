"""Which blobs the rows of the catalog name, with their sizes; the bytes themselves are the store's."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from catalog.actors import owner_of
from catalog.changes import in_parts
from catalog.doomed import refuse_doomed
from catalog.quotas import require_room
from catalog.tables import BlobRow


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
        SweptMeanwhileError: a sweep removed one of them since it was written.
    """
    wanted = {blob.digest: blob for blob in blobs}
    refuse_doomed(session, wanted)
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
    for batch in in_parts(digests):
        session.execute(delete(BlobRow).where(BlobRow.digest.in_(batch)))


def blob_bytes(session: Session) -> dict[str, int]:
    """The recorded bytes of each kind of blob."""
    query = select(BlobRow.kind, func.sum(BlobRow.size_bytes)).group_by(BlobRow.kind).order_by(BlobRow.kind)
    return {kind: int(size_bytes) for kind, size_bytes in session.execute(query)}
