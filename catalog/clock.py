"""Time as the catalog keeps it: milliseconds since 1970, by the database's own clock.

Several machines share one catalog, so the only clock that all of them can compare with is the database's.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Dialect, Double, select, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class UtcTime(TypeDecorator[datetime]):
    """A moment: an aware datetime in UTC outside, a whole number of milliseconds since 1970 in the database.

    Whole numbers, so that a moment that was read can be asked for again with `=`.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Milliseconds since 1970."""
        return None if value is None else (value - _EPOCH) // _MILLISECOND

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """An aware datetime in UTC."""
        return None if value is None else _EPOCH + int(value) * _MILLISECOND


def read_clock(session: Session) -> datetime:
    """The moment that the database's clock shows."""
    return session.scalars(select(now())).one()


class now(GenericFunction[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock, as it is read while the statement runs."""

    type = UtcTime()
    inherit_cache = True
    name = "condu_now"


def age_s(
    moment: InstrumentedAttribute[datetime] | InstrumentedAttribute[datetime | None],
) -> ColumnElement[float]:
    """How many seconds ago a moment was, in SQL; NULL for no moment."""
    milliseconds = type_coerce(now(), BigInteger) - type_coerce(moment, BigInteger)
    return type_coerce(milliseconds * 0.001, Double[float]())


def _sqlite_now(element: Any, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    # unixepoch('subsec') needs SQLite 3.42; Debian 12 ships 3.40. A Julian day is kept in whole milliseconds.
    return "CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"


def _postgresql_now(element: Any, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


compiles(now, "sqlite")(_sqlite_now)
compiles(now, "postgresql")(_postgresql_now)
