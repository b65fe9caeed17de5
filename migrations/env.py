"""Runs the migrations; Alembic executes this file."""

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.schema import SchemaItem

from catalog.database import open_engine
from catalog.tables import CatalogTable


def _is_ours(item: SchemaItem, name: str | None, kind: str, reflected: bool, compared: SchemaItem | None) -> bool:  # noqa: ARG001, FBT001 - Alembic's signature
    # The job engine keeps its tables in the same database and migrates them itself.
    return not (kind == "table" and reflected and name not in CatalogTable.metadata.tables)


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=CatalogTable.metadata,
        include_object=_is_ours,
        render_as_batch=True,
        compare_type=True,
        # SQLite can roll back DDL; Alembic only does not expect it. A migration that dies leaves nothing behind,
        # and the write lock is taken before the version is read, so that two migrators do not collide.
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    """Migrates the database that `catalog.database` named."""
    engine = open_engine(context.config.attributes["url"])
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                # Batch mode drops and rebuilds tables; with foreign keys on, a drop would cascade.
                connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
            _migrate(connection)
    finally:
        engine.dispose()


main()
