"""How the catalog's database is opened and brought to the newest schema."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url

from catalog.errors import OutdatedSchemaError
from catalog.tables import AllowedCodeRow

# Writers wait for each other this long; every write transaction of ours takes milliseconds.
BUSY_TIMEOUT_S = 30.0
# A writer that was stopped in the middle of a transaction holds all others up; the server ends it after this.
_IDLE_IN_TRANSACTION_S = 15.0
_CONNECT_TIMEOUT_S = 10
# Any number, the same in all processes: "condu" in ASCII.
_WRITERS_LOCK = 0x636F6E6475

# At INFO, Alembic tells about itself whenever a catalog is opened.
logging.getLogger("alembic").setLevel(logging.WARNING)


def open_engine(url: str) -> Engine:
    """An engine on the catalog, whose transactions mean the same on SQLite and on PostgreSQL.

    One writes at a time, from its first statement on, so that what it has looked up stays true until it
    commits. Connections with `execution_options(condu_begin="DEFERRED")` only read, all of it from one
    moment, and wait for no writer. SQLite is put into WAL, with foreign keys and durable commits; the folder
    of its file is made.
    """
    if make_url(url).get_backend_name() == "sqlite":
        return _open_sqlite(url)
    engine = create_engine(
        url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=postgresql_arguments()
    )
    event.listen(engine, "begin", begin_postgresql)
    return engine


def postgresql_arguments() -> dict[str, Any]:
    """What every connection to PostgreSQL is opened with."""
    bounds = {
        "lock_timeout": BUSY_TIMEOUT_S,
        "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_S,
    }
    options = " ".join(f"-c {name}={seconds * 1000:.0f}" for name, seconds in bounds.items())
    return {"connect_timeout": _CONNECT_TIMEOUT_S, "options": options}


def begin_postgresql(connection: Connection) -> None:
    """Begins a transaction as SQLite does: a reader at one moment, writers one after the other."""
    if _begins_reading(connection):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")


def _begins_reading(connection: Connection) -> bool:
    return connection.get_execution_options().get("condu_begin") == "DEFERRED"


def _open_sqlite(url: str) -> Engine:
    database = make_url(url).database
    if database and database != ":memory:":
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # None: the driver begins no transactions of its own, which would come too late and DEFERRED.
    connection.isolation_level = None
    cursor = connection.cursor()
    # The mode is a property of the file, so the job engine's own connections get it too.
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL: a published revision survives a power cut, not only a crash of the process.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def compact(engine: Engine) -> None:
    """Moves SQLite's write-ahead log into the database and empties its file; others do so themselves.

    Left alone, SQLite never empties it and reuses it only after 4 MB: as much as twenty triggers of a
    small model.
    """
    if engine.dialect.name != "sqlite":
        return
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer that begins as a reader cannot wait for another writer, it fails at once.
    connection.exec_driver_sql("BEGIN DEFERRED" if _begins_reading(connection) else "BEGIN IMMEDIATE")


@contextmanager
def _alembic_config(url: str) -> Iterator[Config]:
    with as_file(files("migrations")) as folder:
        config = Config()
        config.set_main_option("script_location", str(folder))
        # Not as the option "sqlalchemy.url": a % in a password would be taken for an interpolation.
        config.attributes["url"] = url
        yield config


def upgrade_schema(url: str, revision: str = "head") -> None:
    """Brings our tables to the newest schema (or to one named schema revision), creating them if need be.

    A database that the next release has migrated, and that this one may go on using, stays as it is.

    Raises:
        OutdatedSchemaError: a newer version of condu has migrated the database.
    """
    with _alembic_config(url) as config:
        engine = open_engine(url)
        try:
            if _is_newer(engine, ScriptDirectory.from_config(config)):
                return
        finally:
            engine.dispose()
        command.upgrade(config, revision)


def _is_newer(engine: Engine, known: ScriptDirectory) -> bool:
    """Whether a newer version of condu has migrated the database, and lets this one go on using it.

    Raises:
        OutdatedSchemaError: it does not let it.
    """
    found, ours = _schema_of(engine), {script.revision for script in known.walk_revisions()}
    if found is None or found in ours:
        return False
    # The oldest that may use it is one that we know: so our own schema is that one, or came after it.
    if _oldest_allowed(engine) in ours:
        return True
    raise OutdatedSchemaError(
        f"the catalog {engine.url.render_as_string()} is at schema {found}, which this version of "
        "condu does not know: a newer one has migrated it; upgrade condu, or restore an earlier backup"
    )


def _oldest_allowed(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table(AllowedCodeRow.__tablename__):
            return None
        return connection.scalar(select(AllowedCodeRow.oldest))


def schema_of(url: str) -> str | None:
    """The schema revision that the database is at; None where it has no tables of ours."""
    engine = open_engine(url)
    try:
        return _schema_of(engine)
    finally:
        engine.dispose()


def newest_schema() -> str:
    """The schema revision that this version of condu writes."""
    with _alembic_config("") as config:
        return str(ScriptDirectory.from_config(config).get_current_head())


def _schema_of(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def downgrade_schema(url: str, revision: str) -> None:
    """Takes our tables back to a schema revision; "base" removes them all."""
    with _alembic_config(url) as config:
        command.downgrade(config, revision)


def check_schema(engine: Engine) -> None:
    """Nothing, when the database is at the newest schema, or at a newer one that lets this version use it.

    Raises:
        OutdatedSchemaError: it is not; the message says what to do.
    """
    with _alembic_config(str(engine.url)) as config:
        known = ScriptDirectory.from_config(config)
    found = _schema_of(engine)
    if found != known.get_current_head() and not _is_newer(engine, known):
        raise OutdatedSchemaError(
            f"the catalog {engine.url.render_as_string()} is at schema {found or 'none'}, this version of "
            f"condu needs {known.get_current_head()}: run `condu migrate`"
        )
