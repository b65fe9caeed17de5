"""Pre-trained models that others are learned on."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from catalog.actors import tell
from catalog.doomed import refuse_doomed
from catalog.errors import AlreadyExistsError, NoSuchRowError, StillInUseError
from catalog.names import check_name
from catalog.records import to_record
from catalog.tables import BaseRow, ModelRow


@dataclass(frozen=True)
class BaseRecord:
    """A pre-trained model: its architecture, the preprocessing it goes with, and where its weights are."""

    name: str
    architecture: str | None
    config: dict[str, Any]
    preprocessing: dict[str, Any]
    digest: str
    layout: str
    num_parameters: int
    size_bytes: int
    created_at: datetime


def add_base(
    session: Session,
    *,
    name: str,
    architecture: str | None,
    config: dict[str, Any],
    preprocessing: dict[str, Any],
    digest: str,
    layout: str,
    num_parameters: int,
    size_bytes: int,
) -> BaseRecord:
    """The new base.

    Raises:
        AlreadyExistsError: a base of that name exists.
        InvalidNameError: it may not be called that.
        SweptMeanwhileError: a sweep removed its manifest since it was written.
    """
    check_base_free(session, name)
    refuse_doomed(session, [digest])
    tell(session, base=name, digest=digest)
    row = BaseRow(
        name=name,
        architecture=architecture,
        config=config,
        preprocessing=preprocessing,
        digest=digest,
        layout=layout,
        num_parameters=num_parameters,
        size_bytes=size_bytes,
    )
    session.add(row)
    session.flush()
    return to_record(BaseRecord, row)


def check_base_free(session: Session, name: str) -> None:
    """Nothing, when a base could be added under that name; ask before an upload, not only after it.

    Raises:
        AlreadyExistsError: a base of that name exists.
        InvalidNameError: it may not be called that.
    """
    check_name(name, "base")
    if session.get(BaseRow, name) is not None:
        raise AlreadyExistsError(f"base {name!r} exists already: choose another name, or delete it first")


def find_base(session: Session, name: str) -> BaseRecord:
    """The base of that name.

    Raises:
        NoSuchRowError: there is none.
    """
    row = session.get(BaseRow, name)
    if row is None:
        raise NoSuchRowError(f"there is no base {name!r}: `condu base list` shows those there are")
    return to_record(BaseRecord, row)


def list_bases(session: Session) -> list[BaseRecord]:
    """All bases, by name."""
    return [to_record(BaseRecord, row) for row in session.scalars(select(BaseRow).order_by(BaseRow.name))]


def delete_base(session: Session, name: str) -> None:
    """Forgets a base; its blobs stay until the sweeper comes.

    Raises:
        NoSuchRowError: there is none of that name.
        StillInUseError: a model was made on it.
    """
    find_base(session, name)
    models = session.scalars(select(ModelRow.name).where(ModelRow.base == name).order_by(ModelRow.name)).all()
    if models:
        raise StillInUseError(f"base {name!r} is the base of {', '.join(models)}: delete those models first")
    session.delete(session.get_one(BaseRow, name))
    session.flush()
