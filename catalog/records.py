"""Rows become frozen records, which outlive the session that read them."""

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, ClassVar, Protocol, TypeVar

from catalog.tables import CatalogTable


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Record = TypeVar("Record", bound=_Dataclass)


def to_record(kind: type[Record], row: CatalogTable, extra: Mapping[str, Any] | None = None) -> Record:
    """A record of that dataclass, each field from `extra` or the column of its name; lists as tuples."""
    values = dict(extra or {})
    for field in fields(kind):
        if field.name not in values:
            value = getattr(row, field.name)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
