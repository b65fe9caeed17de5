"""Compare and swap in SQL: change a row where it is still as expected, and see whether it was."""

from typing import Any, cast

from sqlalchemy import CursorResult, Delete, Update
from sqlalchemy.orm import Session


def count_changes(session: Session, statement: Update | Delete) -> int:
    """How many rows the statement changed."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
