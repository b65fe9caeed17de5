"""Compare and swap in SQL: change a row where it is still as expected, and see whether it was."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

from sqlalchemy import CursorResult, Delete, Update
from sqlalchemy.orm import Session

# SQLite takes 32766 parameters in one statement; older builds 999.
_PARAMETERS_A_STATEMENT = 500


def count_changes(session: Session, statement: Update | Delete) -> int:
    """How many rows the statement changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount


def in_parts(values: Iterable[str]) -> Iterator[list[str]]:
    """The distinct values, in lists that are short enough for one statement."""
    waiting = sorted(set(values))
    for start in range(0, len(waiting), _PARAMETERS_A_STATEMENT):
        yield waiting[start : start + _PARAMETERS_A_STATEMENT]
