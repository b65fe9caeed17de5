"""Runs the migrations; Alembic executes this file."""

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.schema import SchemaItem

from catalog.database import open_engine
from catalog.tables import CatalogTable


def _is_ours(
    item: SchemaItem,  # noqa: ARG001 - Alembic's signature
    name: str | None,
    kind: str,
    reflected: bool,  # noqa: FBT001 - same
    compared: SchemaItem | None,  # noqa: ARG001 - same
) -> bool:
    # The job engine keeps its tables in the same database and migrates them itself.
    return not (kind == "table" and reflected and name not in CatalogTable.metadata.tables)


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=CatalogTable.metadata,
        include_object=_is_ours,
        render_as_batch=True,
        compare_type=True,
        # SQLite can roll back DDL, Alembic only does not expect it. So a migration that dies leaves nothing,
        # and the write lock is taken before the version is read: two migrators do not collide.
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
