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
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url

from catalog.errors import OutdatedSchemaError

# Writers wait for each other this long; every write transaction of ours takes milliseconds.
BUSY_TIMEOUT_S = 30.0

# At INFO, Alembic tells about itself whenever a catalog is opened.
logging.getLogger("alembic").setLevel(logging.WARNING)


def open_engine(url: str) -> Engine:
    """An engine on the catalog; SQLite in WAL, with foreign keys, durable commits and honest transactions.

    The folder of an SQLite file is made. Transactions begin with BEGIN IMMEDIATE unless the connection
    carries `execution_options(condu_begin="DEFERRED")`: a writer that begins as a reader cannot wait for
    another writer, it fails at once.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
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
    mode = connection.get_execution_options().get("condu_begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")


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

    Raises:
        OutdatedSchemaError: a newer version of condu has migrated the database.
    """
    with _alembic_config(url) as config:
        _refuse_newer(url, ScriptDirectory.from_config(config))
        command.upgrade(config, revision)


def _refuse_newer(url: str, known: ScriptDirectory) -> None:
    engine = open_engine(url)
    try:
        found = _schema_of(engine)
    finally:
        engine.dispose()
    if found is not None and found not in {script.revision for script in known.walk_revisions()}:
        raise OutdatedSchemaError(
            f"the catalog {make_url(url).render_as_string()} is at schema {found}, which this version of "
            "condu does not know: a newer one has migrated it; upgrade condu, or restore an earlier backup"
        )


def _schema_of(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def downgrade_schema(url: str, revision: str) -> None:
    """Takes our tables back to a schema revision; "base" removes them all."""
    with _alembic_config(url) as config:
        command.downgrade(config, revision)


def check_schema(engine: Engine) -> None:
    """Nothing, when the database is at the newest schema.

    Raises:
        OutdatedSchemaError: it is not; the message says what to do.
    """
    with _alembic_config(str(engine.url)) as config:
        newest = ScriptDirectory.from_config(config).get_current_head()
    found = _schema_of(engine)
    if found != newest:
        raise OutdatedSchemaError(
            f"the catalog {engine.url.render_as_string()} is at schema {found or 'none'}, this version of "
            f"condu needs {newest}: run `condu migrate`"
        )
