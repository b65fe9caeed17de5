"""A backup of any installation becomes any other, row for row and bit for bit."""

import json

import pytest
from sqlalchemy.orm import Session

from catalog import Catalog
from catalog.audit import list_audit
from catalog.database import downgrade_schema, newest_schema, open_engine, schema_of, upgrade_schema
from catalog.errors import OutdatedSchemaError, StillInUseError
from catalog.jobs import find_job
from catalog.rows import _NOT_KEPT, load_rows
from catalog.tables import AuditRow
from tests.backup.places import (
    back_up,
    contents_of,
    embedded,
    fill_installation,
    on_servers,
    restore_newest,
    rows_of,
)
from tests.migrations.rows import fill, read


@pytest.fixture
def servers(tmp_path, postgresql_url, s3_place):
    return on_servers(tmp_path / "servers", postgresql_url, s3_place)


@pytest.fixture
def filled(tmp_path):
    settings = embedded(tmp_path / "first")
    fill_installation(settings)
    return settings


def as_restored(lines):
    """The rows with unfinished jobs as a restore queues them."""
    found = []
    for line in lines:
        name, row = json.loads(line)
        if name == "jobs" and row["state"] == "running":
            row |= {"state": "queued", "worker": None, "num_releases": row["num_releases"] + 1}
        found.append((name, row))
    return found


def test_an_installation_moves_to_servers_and_back_without_losing_a_row_or_a_bit(filled, servers, tmp_path):
    there = back_up(filled, tmp_path / "place")
    assert there.manifest.faults == []
    moved = restore_newest(servers, tmp_path / "place")
    assert moved.num_jobs == 1
    assert contents_of(servers) == contents_of(filled)
    assert [json.loads(line) for line in rows_of(servers)] == [
        [name, row] for name, row in as_restored(rows_of(filled))
    ]

    back_up(servers, tmp_path / "other place")
    home = embedded(tmp_path / "home")
    restore_newest(home, tmp_path / "other place")
    assert contents_of(home) == contents_of(filled)
    assert rows_of(home) == rows_of(servers)


def test_a_backup_in_a_bucket_is_restored_from_there(servers, tmp_path, s3_place):
    fill_installation(servers)
    bucket, _, prefix = s3_place.url.removeprefix("s3://").partition("/")
    where = f"s3://{bucket}/{prefix}-backups"
    assert back_up(servers, where).num_copied == 4
    assert back_up(servers, where).num_copied == 0
    copy = servers.model_copy(
        update={
            "data": tmp_path / "copy",
            "database_url": None,
            "objects_url": f"s3://{bucket}/{prefix}-copy",
        }
    )
    restore_newest(copy, where)
    assert contents_of(copy) == contents_of(servers)


def test_every_table_but_those_of_one_moment_is_in_a_backup(filled):
    tables = {json.loads(line)[0] for line in rows_of(filled)}
    engine = open_engine(filled.catalog_url)
    try:
        assert tables == set(read(engine)) - _NOT_KEPT
    finally:
        engine.dispose()


def test_numbers_that_the_database_gives_go_on_behind_the_restored_ones(filled, servers, tmp_path):
    back_up(filled, tmp_path / "place")
    restore_newest(servers, tmp_path / "place")
    catalog = Catalog(servers)
    with catalog.transaction() as session:
        before = list_audit(session)[0].entry
        session.add(AuditRow(who="a test", action="a change", subject="", facts={}))
        session.flush()
        assert list_audit(session)[0].entry == before + 1
    catalog.close()


def test_a_job_that_was_running_is_queued_and_its_lost_start_not_held_against_it(filled, tmp_path):
    back_up(filled, tmp_path / "place")
    new = embedded(tmp_path / "new")
    restore_newest(new, tmp_path / "place")
    catalog = Catalog(new)
    with catalog.snapshot() as session:
        job = find_job(session, "job")
    catalog.close()
    assert (job.state, job.worker, job.attempt, job.num_releases) == ("queued", None, 2, 8)


def test_an_installation_that_holds_something_is_not_overwritten(filled, tmp_path):
    back_up(filled, tmp_path / "place")
    before = rows_of(filled), contents_of(filled)
    with pytest.raises(StillInUseError, match="restore into a new data folder"):
        restore_newest(filled, tmp_path / "place")
    assert (rows_of(filled), contents_of(filled)) == before


def test_a_backup_of_an_older_schema_is_restored_and_migrated(tmp_path):
    """As the release before made it: rows of its schema's columns, its schema's name in the manifest."""
    old = f"sqlite:///{tmp_path / 'old.sqlite'}"
    upgrade_schema(old, "0003")
    engine = open_engine(old)
    rows = fill(engine)
    engine.dispose()
    lines = [json.dumps([name, row]).encode() for name, row in rows.items() if name not in _NOT_KEPT]
    new = f"sqlite:///{tmp_path / 'new.sqlite'}"
    upgrade_schema(new)  # the restore before was killed, or somebody ran `condu migrate`
    load_rows(new, lines, schema="0003", requeue=lambda *_: None)
    assert schema_of(new) == newest_schema()
    engine = open_engine(new)
    found = read(engine)
    engine.dispose()
    assert found["models"][0]["name"] == "pets"
    assert found["models"][0]["key_id"] is None


def test_rows_of_a_newer_schema_are_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    with pytest.raises(OutdatedSchemaError, match="upgrade condu"):
        load_rows(url, [], schema="9999", requeue=lambda *_: None)


def test_a_catalog_at_another_schema_is_not_backed_up(filled, tmp_path):
    downgrade_schema(filled.catalog_url, "0004")
    with pytest.raises(OutdatedSchemaError, match="condu migrate"):
        back_up(filled, tmp_path / "place")


@pytest.mark.parametrize("kind", ["embedded", "servers"])
def test_rows_are_loaded_all_or_none(filled, request, tmp_path, kind):
    target = embedded(tmp_path / "new") if kind == "embedded" else request.getfixturevalue("servers")
    lines = rows_of(filled)
    target.data.mkdir()

    def cut_off():
        yield from lines[:-1]
        raise RuntimeError("the place is gone")

    with pytest.raises(RuntimeError):
        load_rows(target.catalog_url, cut_off(), schema=newest_schema(), requeue=lambda *_: None)
    assert rows_of(target) == []
    queued = []
    load_rows(target.catalog_url, lines, schema=newest_schema(), requeue=lambda _, *job: queued.append(job))
    assert queued == [("job", "model of jobs")]
    engine = open_engine(target.catalog_url)
    with Session(engine):
        assert rows_of(target) != []
    engine.dispose()
