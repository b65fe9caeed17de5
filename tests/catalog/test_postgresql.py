"""What the catalog promises of its transactions, on a real PostgreSQL server."""

import threading

import pytest
from sqlalchemy import text

import catalog.database
from catalog import Catalog, upgrade
from catalog.bases import find_base, list_bases
from catalog.errors import CatalogUnavailableError, NoSuchRowError
from tests.catalog.examples import add_tiny_base


@pytest.fixture
def catalog_there(postgresql_url):
    upgrade(postgresql_url)
    opened = Catalog(postgresql_url)
    yield opened
    opened.close()


def names(session):
    return [base.name for base in list_bases(session)]


def test_a_snapshot_on_postgresql_sees_one_moment_and_waits_for_no_writer(catalog_there):
    with catalog_there.snapshot() as reading:
        assert names(reading) == []
        with catalog_there.transaction() as writing:
            add_tiny_base(writing, "first")
        assert names(reading) == []
    with catalog_there.snapshot() as reading:
        assert names(reading) == ["first"]


def test_writers_on_postgresql_wait_for_each_other_from_their_first_statement_on(catalog_there):
    """Ten who each add one to what they counted: none counts what another has not committed yet."""

    def add_one_more():
        with catalog_there.transaction() as session:
            add_tiny_base(session, f"base-{len(names(session))}")

    threads = [threading.Thread(target=add_one_more) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with catalog_there.snapshot() as session:
        assert sorted(names(session)) == [f"base-{number}" for number in range(10)]


def test_a_writer_that_stands_still_is_ended_by_the_server_and_told_so(postgresql_url, monkeypatch):
    monkeypatch.setattr(catalog.database, "_IDLE_IN_TRANSACTION_S", 0.2)
    upgrade(postgresql_url)
    stuck, other = Catalog(postgresql_url), Catalog(postgresql_url)
    others_are_done = threading.Event()

    def write():
        with other.transaction() as session:
            add_tiny_base(session, "other")
        others_are_done.set()

    waiting = threading.Thread(target=write)

    def stand_still():
        with stuck.transaction() as session:
            add_tiny_base(session, "stuck")
            waiting.start()
            assert others_are_done.wait(30)
            session.execute(text("SELECT 1"))

    try:
        with pytest.raises(CatalogUnavailableError):
            stand_still()
        with other.snapshot() as session:
            assert names(session) == ["other"]
    finally:
        waiting.join()
        stuck.close()
        other.close()


def test_a_name_with_a_nul_byte_names_nothing_on_postgresql_either(catalog_there):
    with pytest.raises(NoSuchRowError), catalog_there.snapshot() as session:
        find_base(session, "a\0b")
