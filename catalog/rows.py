"""All rows of the catalog as JSON lines, the same from either database and into either."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import JSON, BigInteger, MetaData, Table, func, select, text, type_coerce
from sqlalchemy.orm import Session

from catalog.clock import UtcTime
from catalog.database import downgrade_schema, newest_schema, open_engine, schema_of, upgrade_schema
from catalog.errors import OutdatedSchemaError, StillInUseError
from catalog.jobs import QUEUED, RUNNING, UNFINISHED
from catalog.tables import CatalogTable

_NOT_KEPT = frozenset({"workers", "sessions", "doomed_blobs", "allowed_code"})
"""Leases of processes, browsers that are signed in, what a sweep is about: none outlives its installation."""
_ROWS_A_BATCH = 500
_Requeue = Callable[[Session, str, str], None]


def dump_rows(session: Session) -> Iterator[bytes]:
    """A line for every row, `["table", {"column": value}]`, rows that others point at first.

    Moments are milliseconds since 1970, as both databases keep them.
    """
    for table in CatalogTable.metadata.sorted_tables:
        if table.name in _NOT_KEPT:
            continue
        columns = [
            type_coerce(column, BigInteger).label(column.name) if isinstance(column.type, UtcTime) else column
            for column in table.columns
        ]
        # In the order of their keys: a revision's parent has a smaller number.
        query = select(*columns).order_by(*table.primary_key.columns)
        for row in session.execute(query, execution_options={"yield_per": _ROWS_A_BATCH}).mappings():
            yield json.dumps([table.name, dict(row)], ensure_ascii=False).encode() + b"\n"


def require_newest_schema(url: str) -> str:
    """The newest schema, at which the database is.

    Raises:
        OutdatedSchemaError: it is at another, so that rows would be left out or misread.
    """
    found, newest = schema_of(url), newest_schema()
    if found != newest:
        raise OutdatedSchemaError(
            f"the catalog is at schema {found or 'none'}, this version of condu reads {newest}: use the "
            "version that migrated it, or run `condu migrate`"
        )
    return newest


def require_empty(url: str) -> None:
    """Nothing, when no row would be lost by writing into the database.

    Raises:
        StillInUseError: there is a row of ours in it.
        OutdatedSchemaError: a newer version of condu has migrated it.
    """
    if schema_of(url) is None:
        return
    engine = open_engine(url)
    try:
        with Session(engine) as session:
            _require_empty(session)
    finally:
        engine.dispose()


def _require_empty(session: Session) -> None:
    for table in _tables(session).values():
        if table.name not in _NOT_KEPT and session.scalar(select(func.count()).select_from(table)):
            raise StillInUseError(
                f"the catalog holds something (rows of {table.name}): restore into a new data folder or "
                "database"
            )


def load_rows(url: str, lines: Iterable[bytes], *, schema: str, requeue: _Requeue) -> int:
    """Writes dumped rows into an empty database, all or none; how many jobs are queued in it then.

    Jobs that were queued or running are queued. The tables are brought to the schema that the rows are of
    first, and to the newest at the end: another run does what a death in between left undone.

    Args:
        url: the database.
        lines: as `dump_rows` made them.
        schema: of the catalog that they were dumped from.
        requeue: told session, job and model of each job that is not finished, in their order.

    Raises:
        StillInUseError: the database holds something.
        OutdatedSchemaError: the rows are of a schema that this version of condu does not know.
    """
    require_empty(url)
    if schema > newest_schema():
        raise OutdatedSchemaError(
            f"the rows are of schema {schema}, this version of condu knows {newest_schema()}: upgrade condu"
        )
    if schema_of(url) not in {None, schema}:
        downgrade_schema(url, "base")
    upgrade_schema(url, schema)
    engine = open_engine(url)
    try:
        with Session(engine) as session, session.begin():
            _require_empty(session)
            unfinished = _insert(session, lines)
            for _, job_id, model in sorted(unfinished):
                requeue(session, job_id, model)
    finally:
        engine.dispose()
    upgrade_schema(url)
    return len(unfinished)


def _insert(session: Session, lines: Iterable[bytes]) -> list[tuple[int, str, str]]:
    """Inserts the rows; what is unfinished of the jobs: since when, which, and of which model."""
    tables = _tables(session)
    unfinished: list[tuple[int, str, str]] = []
    for name, entries in groupby((json.loads(line) for line in lines), key=lambda entry: str(entry[0])):
        batch: list[dict[str, Any]] = []
        for _, row in entries:
            if name == "jobs" and row["state"] in UNFINISHED:
                _queue(row)
                unfinished.append((row["created_at"], row["job_id"], row["model"]))
            batch.append(row)
            if len(batch) == _ROWS_A_BATCH:
                session.execute(tables[name].insert(), batch)
                batch = []
        if batch:
            session.execute(tables[name].insert(), batch)
        _go_on_counting(session, tables[name])
    return unfinished


def _queue(row: dict[str, Any]) -> None:
    # Its worker did not fail, so this start does not count against it.
    row["num_releases"] += row["state"] == RUNNING
    row["state"], row["worker"] = QUEUED, None


def _tables(session: Session) -> dict[str, Table]:
    """Our tables as they stand in the database, whichever schema that is."""
    found = MetaData()
    found.reflect(session.connection(), only=lambda name, _: name in CatalogTable.metadata.tables)
    for table in found.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)
    return dict(found.tables)


def _go_on_counting(session: Session, table: Table) -> None:
    """Lets PostgreSQL's counter go on behind the numbers that were written past it; SQLite has none."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for column in table.primary_key.columns:
        names = {"name": table.name, "column": column.name}
        sequence = session.scalar(text("SELECT pg_get_serial_sequence(:name, :column)"), names)
        if sequence is not None:
            session.execute(select(func.setval(sequence, select(func.max(column)).scalar_subquery())))
