"""Rows become frozen records, which outlive the session that read them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from catalog.tables import CatalogTable

Record = TypeVar("Record")


def to_record(kind: type[Record], row: CatalogTable, extra: Mapping[str, Any] | None = None) -> Record:
    """A record of the given dataclass, each field from the column of its name or from `extra`; lists as tuples."""
    values = dict(extra or {})
    for field in fields(kind):  # type: ignore[arg-type] - every record is a dataclass
        if field.name not in values:
            value = getattr(row, field.name)
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)
