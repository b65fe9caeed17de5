"""Rows live through migrations, up and down; code of the release before goes on working on the new schema."""

import sqlite3
from importlib.resources import files
from itertools import pairwise

import pytest
import sqlalchemy as sa

from catalog import Catalog
from catalog.bases import list_bases
from catalog.database import downgrade_schema, newest_schema, open_engine, schema_of, upgrade_schema
from catalog.errors import OutdatedSchemaError
from catalog.jobs import list_jobs
from catalog.models import list_models
from catalog.revisions import list_revisions
from catalog.tables import CatalogTable
from catalog.tasks import head_tasks
from tests.migrations.rows import fill, read, tables_of

SCHEMAS = sorted(
    file.name[:4] for file in files("migrations").joinpath("versions").iterdir() if file.name[0] == "0"
)
STEPS = list(pairwise(SCHEMAS))
FIRST_WITH_ALLOWANCE = "0005"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'condu.sqlite'}"
    return request.getfixturevalue("postgresql_url")


@pytest.fixture
def engine(url):
    opened = open_engine(url)
    yield opened
    opened.dispose()


def shared(before, after):
    """The rows as far as both schemas have their tables and columns."""
    return {
        name: [{column: row[column] for column in row if column in after[name][0]} for row in rows]
        for name, rows in before.items()
        if name in after and rows
    }


def test_every_table_gets_a_row_so_that_no_migration_is_tried_on_an_empty_one(url, engine):
    upgrade_schema(url)
    fill(engine)
    found = read(engine)
    assert set(found) == set(CatalogTable.metadata.tables)
    assert [name for name, rows in found.items() if not rows] == []


def test_rows_of_all_tables_live_through_every_migration_up_and_down(url, engine):
    written = {}
    for schema in SCHEMAS:
        before = read(engine) if written else {}
        upgrade_schema(url, schema)
        after = read(engine)
        assert shared(before, after) == shared(shared(after, before) if before else {}, after)
        for name, rows in before.items():
            assert len(after[name]) == len(rows), f"{schema} lost rows of {name}"
        written |= fill(engine)
    up = read(engine)
    assert all(up.values())
    for schema in reversed(SCHEMAS[:-1]):
        downgrade_schema(url, schema)
        down = read(engine)
        assert all(down.values())
        assert shared(down, up) == shared(shared(up, down), down)
    upgrade_schema(url)
    again = read(engine)
    for name, rows in down.items():
        assert shared({name: rows}, again) == shared(shared({name: again[name]}, {name: rows}), again)
    downgrade_schema(url, "base")
    assert tables_of(engine) == {}


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_code_of_the_schema_before_writes_reads_and_changes_rows_on_the_next(tmp_path, before, after):
    """What old code says in SQL names the columns it knows, no others: nothing new may be asked of it."""
    url = f"sqlite:///{tmp_path / 'condu.sqlite'}"
    check_code_of_before(url, before, after)


def test_code_of_the_schema_before_works_on_postgresql_as_well(postgresql_url):
    check_code_of_before(postgresql_url, *STEPS[-1])


def check_code_of_before(url, before, after):
    upgrade_schema(url, before)
    engine = open_engine(url)
    try:
        known = tables_of(engine)
        upgrade_schema(url, after)
        written = fill(engine, known)
        assert set(written) == set(known)
        rows = read(engine, known)
        assert {name: found[0] for name, found in rows.items()} == written
        with engine.begin() as connection:
            connection.execute(known["jobs"].update().values(attempt=8, worker=None))
            connection.execute(known["models"].update().values(head_revision=1))
            connection.execute(known["blobs"].delete())
        upgrade_schema(url)
    finally:
        engine.dispose()
    check_new_code_reads(url)


def check_new_code_reads(url):
    catalog = Catalog(url)
    try:
        with catalog.snapshot() as session:
            assert [base.name for base in list_bases(session)] == ["tiny"]
            assert [model.name for model in list_models(session)] == ["pets"]
            assert [revision.number for revision in list_revisions(session, "pets")] == [1]
            assert [task.name for task in head_tasks(session, "pets")] == ["name of tasks"]
            assert [job.attempt for job in list_jobs(session)] == [8]
            for mapper in CatalogTable.registry.mappers:
                session.scalars(sa.select(mapper.class_)).all()
    finally:
        catalog.close()


def at_a_schema_from_the_future(tmp_path, *, allows):
    url = f"sqlite:///{tmp_path / 'newer.sqlite'}"
    upgrade_schema(url)
    with sqlite3.connect(tmp_path / "newer.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
        connection.execute("UPDATE allowed_code SET oldest = ?", [allows])
    connection.close()
    return url


def test_a_database_that_the_next_release_migrated_is_used_and_left_as_it_is(tmp_path):
    url = at_a_schema_from_the_future(tmp_path, allows=newest_schema())
    upgrade_schema(url)
    catalog = Catalog(url)
    with catalog.snapshot() as session:
        assert list_bases(session) == []
    catalog.close()
    assert schema_of(url) == "from_the_future"


def test_a_database_that_a_much_later_release_migrated_is_refused(tmp_path):
    url = at_a_schema_from_the_future(tmp_path, allows="also_from_the_future")
    with pytest.raises(OutdatedSchemaError, match="upgrade condu"):
        Catalog(url)
    with pytest.raises(OutdatedSchemaError, match="upgrade condu"):
        upgrade_schema(url)


@pytest.mark.parametrize("schema", [schema for schema in SCHEMAS if schema >= FIRST_WITH_ALLOWANCE])
def test_every_schema_allows_the_code_of_the_one_before(tmp_path, schema):
    url = f"sqlite:///{tmp_path / 'condu.sqlite'}"
    upgrade_schema(url, schema)
    engine = open_engine(url)
    try:
        (row,) = read(engine)["allowed_code"]
    finally:
        engine.dispose()
    assert row["oldest"] == SCHEMAS[SCHEMAS.index(schema) - 1]
