"""A row in every table, as the tables stand at any schema."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import JSON as SQLITE_JSON

from catalog.tables import NAMING_CONVENTION, CatalogTable

# Where any text or number will not do: names that others point at, states that a check allows.
PARTICULAR = {
    ("bases", "name"): "tiny",
    ("models", "name"): "pets",
    ("models", "base"): "tiny",
    ("models", "head_revision"): 1,
    ("revisions", "model"): "pets",
    ("revisions", "number"): 1,
    ("revisions", "parent"): None,
    ("revisions", "job_id"): "job",
    ("revisions", "expired_at"): None,
    ("tasks", "model"): "pets",
    ("tasks", "task_key"): 1,
    ("tasks", "revision_learned"): 1,
    ("tasks", "accuracy_expert"): 90.5,
    ("triggers", "accuracy"): 90.5,
    ("triggers", "model"): "pets",
    ("triggers", "revision"): 1,
    ("triggers", "task_key"): 1,
    ("prototypes", "task_key"): 1,
    ("jobs", "job_id"): "job",
    ("jobs", "state"): "succeeded",
    ("job_events", "job_id"): "job",
    ("job_events", "seq"): 1,
    ("api_keys", "role"): "read",
    ("api_keys", "key_id"): "k1",
    ("sessions", "key_id"): "k1",
    ("allowed_code", "oldest"): None,  # the migration itself writes its only row
}


def tables_of(engine):
    """Our tables as they stand in the database, those that others point at first."""
    found = sa.MetaData(naming_convention=NAMING_CONVENTION)
    found.reflect(engine)
    ours = [table for table in found.sorted_tables if table.name in CatalogTable.metadata.tables]
    for table in ours:
        for column in table.columns:
            if isinstance(column.type, sa.JSON | SQLITE_JSON):
                column.type = sa.JSON(none_as_null=True)
    return {table.name: table for table in ours}


def full_row(table):
    """A value for every column of the table."""
    return {column.name: _value(table.name, column) for column in table.columns}


def _value(table, column):
    if (table, column.name) in PARTICULAR:
        return PARTICULAR[table, column.name]
    if isinstance(column.type, sa.JSON):
        return ["cat", "dog"] if column.name in {"classes", "templates", "models"} else {"of": column.name}
    python = column.type.python_type
    if python is datetime:
        raise AssertionError(f"{table}.{column.name}: moments are whole milliseconds")
    return {str: f"{column.name} of {table}", bool: False, float: 0.5, int: 7}[python]


def fill(engine, tables=None):
    """Writes a row into every table but those that have one; what the rows are, by table."""
    written = {}
    tables = tables or tables_of(engine)
    with engine.begin() as connection:
        for name, table in tables.items():
            if connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0:
                written[name] = full_row(table)
                connection.execute(table.insert().values(written[name]))
    return written


def read(engine, tables=None):
    """Every row of every table."""
    tables = tables or tables_of(engine)
    with engine.connect() as connection:
        return {
            name: sorted((dict(row) for row in connection.execute(sa.select(table)).mappings()), key=str)
            for name, table in tables.items()
        }
