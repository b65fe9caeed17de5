"""Fixtures of a catalog; tests/faults uses them too."""

import shutil

import pytest

from catalog import Catalog, Settings, upgrade
from catalog.dbos_queue import DbosQueue
from tests.catalog.examples import add_model
from tests.catalog.plays import Play
from tests.catalog.stage import Stage


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory):
    """A database that the migrations built, to be copied: building one takes a tenth of a second."""
    file = tmp_path_factory.mktemp("migrated") / "condu.sqlite"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def settings(tmp_path, migrated_file):
    shutil.copy(migrated_file, tmp_path / "condu.sqlite")
    return Settings(data=tmp_path, lease_s=2.0, beat_s=0.4, poll_s=0.1, stop_timeout_s=5.0)


@pytest.fixture
def catalog(settings):
    opened = Catalog(settings)
    yield opened
    opened.close()


@pytest.fixture
def queue(settings):
    opened = DbosQueue(settings)
    yield opened
    opened.close()


@pytest.fixture
def model(catalog):
    """The name of a model without revisions."""
    with catalog.transaction() as session:
        add_model(session, "pets")
    return "pets"


@pytest.fixture
def play(settings):
    return Play(settings.data)


@pytest.fixture
def stage(settings, catalog, queue, play):
    """Where jobs are submitted and watched; all workers that it started are gone at the end."""
    opened = Stage(settings, catalog, queue=queue, play=play)
    yield opened
    opened.close()
