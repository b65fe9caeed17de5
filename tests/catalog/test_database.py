import io
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest
from alembic import command
from sqlalchemy import inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from catalog import Catalog
from catalog.bases import list_bases
from catalog.clock import UtcTime, now
from catalog.database import _alembic_config, downgrade_schema, open_engine, upgrade_schema
from catalog.errors import OutdatedSchemaError
from catalog.models import list_models
from catalog.tables import CatalogTable
from tests.catalog.examples import add_model, add_tiny_base
from tests.installing import embedded_only


def table_names(url):
    engine = open_engine(url)
    try:
        found = inspect(engine)
        return set(found.get_table_names()) | set(
            found.get_table_names("dbos") if "dbos" in found.get_schema_names() else ()
        )
    finally:
        engine.dispose()


def test_the_migrations_build_what_the_code_maps_and_leave_the_engines_tables_alone(settings):
    with _alembic_config(settings.catalog_url) as config:
        config.stdout = io.StringIO()
        command.check(config)
    assert "workflow_status" in table_names(settings.catalog_url)


def test_a_downgrade_takes_all_tables_back_and_an_upgrade_brings_them_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'condu.sqlite'}"
    ours = set(CatalogTable.metadata.tables)
    upgrade_schema(url)
    assert table_names(url) == ours | {"alembic_version"}
    downgrade_schema(url, "base")
    assert table_names(url) == {"alembic_version"}
    upgrade_schema(url)
    assert ours < table_names(url)


def test_models_of_before_there_were_adapters_are_tuned_in_full(tmp_path):
    url = f"sqlite:///{tmp_path / 'condu.sqlite'}"
    upgrade_schema(url, "0001")
    engine = open_engine(url)
    with engine.begin() as connection:
        for row in (
            "bases VALUES ('tiny', NULL, '{}', '{}', 'd', 'l', 1, 1, 0)",
            "models VALUES ('pets', 'tiny', 'full', 'condu', 'global_l1', 'float32', NULL, 0)",
        ):
            connection.execute(text(f"INSERT INTO {row}"))
    engine.dispose()
    upgrade_schema(url)
    catalog = Catalog(url)
    with catalog.snapshot() as session:
        (model,) = list_models(session)
    catalog.close()
    assert (model.tuning, model.adapter, model.lora_rank, model.lora_seed) == ("full", None, None, None)
    downgrade_schema(url, "0001")
    upgrade_schema(url)


def test_processes_that_upgrade_at_the_same_time_do_not_collide(tmp_path):
    url = f"sqlite:///{tmp_path / 'condu.sqlite'}"
    program = f"from catalog import upgrade; upgrade({url!r})"
    upgrades = [subprocess.Popen([sys.executable, "-W", "error", "-c", program]) for _ in range(2)]
    assert [process.wait(60) for process in upgrades] == [0, 0]
    Catalog(url).close()


def test_the_migrations_lie_in_the_package_that_is_installed():
    assert files("migrations").joinpath("env.py").is_file()
    assert list(files("migrations").joinpath("versions").iterdir())


def test_a_catalog_that_was_not_migrated_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(OutdatedSchemaError, match="condu migrate"):
        Catalog(f"sqlite:///{tmp_path / 'condu.sqlite'}")


def test_the_clock_is_the_databases_and_counts_whole_milliseconds(catalog):
    with catalog.snapshot() as session:
        moment = session.scalars(select(now())).one()
    assert abs(moment - datetime.now(UTC)) < timedelta(hours=1)
    assert moment.tzinfo is UTC
    # A moment that was read can be asked for again with =.
    milliseconds = UtcTime().process_bind_param(moment, sqlite.dialect())
    assert UtcTime().process_result_value(milliseconds, sqlite.dialect()) == moment
    assert "clock_timestamp()" in str(select(now()).compile(dialect=postgresql.dialect()))


@embedded_only
def test_sqlite_is_durable_and_keeps_foreign_keys(catalog):
    with catalog.transaction() as session:
        pragmas = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_a_row_that_points_nowhere_is_refused(catalog):
    with pytest.raises(IntegrityError), catalog.transaction() as session:
        session.execute(
            text("INSERT INTO prototypes (task_key, digest, size_bytes) VALUES (77, 'nowhere', 1)")
        )


def test_a_transaction_that_raises_leaves_nothing(catalog):
    def begin_and_fail():
        with catalog.transaction() as session:
            add_tiny_base(session)
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        begin_and_fail()
    with catalog.snapshot() as session:
        assert list_bases(session) == []


def test_what_a_snapshot_writes_is_not_kept(catalog):
    with catalog.snapshot() as session:
        add_tiny_base(session)
    with catalog.snapshot() as session:
        assert list_bases(session) == []


def test_a_snapshot_waits_for_no_writer_and_sees_one_moment(catalog):
    with catalog.snapshot() as reading:
        assert list_bases(reading) == []
        with catalog.transaction() as writing:
            add_model(writing, "pets")
            with catalog.snapshot() as beside:
                assert list_bases(beside) == []
        assert list_bases(reading) == []
        assert list_models(reading) == []
    with catalog.snapshot() as session:
        assert [record.name for record in list_bases(session)] == ["tiny"]


def test_a_writer_waits_for_another_instead_of_failing(catalog):
    has_written, may_commit = threading.Event(), threading.Event()
    order = []

    def write_first():
        with catalog.transaction() as session:
            add_tiny_base(session, "first")
            has_written.set()
            may_commit.wait(10)
            order.append("first")

    thread = threading.Thread(target=write_first)
    thread.start()
    has_written.wait(10)
    releaser = threading.Timer(0.2, may_commit.set)
    releaser.start()
    with catalog.transaction() as session:
        assert [record.name for record in list_bases(session)] == ["first"]
        order.append("second")
    thread.join()
    releaser.join()
    assert order == ["first", "second"]
