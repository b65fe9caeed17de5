"""What answers for a model now: one row, read once a request."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Integer, and_, bindparam, func, select
from sqlalchemy.orm import Session

from catalog.tables import BaseRow, ModelRow, RevisionRow


@dataclass(frozen=True)
class HeadMark:
    """Which revision a request gets; equal marks are equal states, whatever was deleted and made again.

    Attributes:
        head: Number of the model's head; None before its first revision.
        number: Of the revision that is asked for; None where it is not there.
        manifest: Digest of that revision's manifest.
    """

    model: str
    model_made_at: datetime
    base_made_at: datetime
    head: int | None
    number: int | None
    manifest: str | None
    expired_at: datetime | None


# Built once: to build it takes longer than to run it.
_MARK = (
    select(
        ModelRow.name,
        ModelRow.created_at,
        BaseRow.created_at,
        ModelRow.head_revision,
        RevisionRow.number,
        RevisionRow.manifest,
        RevisionRow.expired_at,
    )
    .join(BaseRow, BaseRow.name == ModelRow.base)
    .outerjoin(
        RevisionRow,
        and_(
            RevisionRow.model == ModelRow.name,
            RevisionRow.number == func.coalesce(bindparam("number", type_=Integer), ModelRow.head_revision),
        ),
    )
    .where(ModelRow.name == bindparam("model"))
)


def find_head(session: Session, model: str, number: int | None = None) -> HeadMark | None:
    """The mark of the model's head, or of that revision; None where there is no such model."""
    row = session.execute(_MARK, {"model": model, "number": number}).first()
    return None if row is None else HeadMark(*row)
