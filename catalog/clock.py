"""Time as the catalog keeps it: seconds since 1970, by the database's own clock.

Several machines share one catalog, so the only clock that all of them can compare with is the database's.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Dialect, Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator


class UtcTime(TypeDecorator[datetime]):
    """A moment: an aware datetime in UTC outside, seconds since 1970 as a float in the database."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:  # noqa: ARG002
        """Seconds since 1970."""
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """An aware datetime in UTC."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


class now(GenericFunction[datetime]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock, as it is read while the statement runs."""

    type = UtcTime()
    inherit_cache = True
    name = "condu_now"


class now_s(GenericFunction[float]):  # noqa: N801
    """The database's clock in plain seconds since 1970, for arithmetic."""

    type = Double()
    inherit_cache = True
    name = "condu_now_s"


def _sqlite_now(element: Any, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    # unixepoch('subsec') needs SQLite 3.42; Debian 12 ships 3.40. A Julian day is exact to some 50 microseconds.
    return "((julianday('now') - 2440587.5) * 86400.0)"


def _postgresql_now(element: Any, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001
    return "(extract(epoch from clock_timestamp()))::double precision"


for function in (now, now_s):
    compiles(function, "sqlite")(_sqlite_now)
    compiles(function, "postgresql")(_postgresql_now)
