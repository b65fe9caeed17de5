"""Fixtures of a catalog; tests/faults uses them too."""

import pytest

from catalog import Catalog
from catalog.dbos_queue import DbosQueue
from tests.catalog.examples import add_model
from tests.catalog.plays import Play
from tests.catalog.stage import Stage
from tests.installing import migrated_file, migrated_settings_at

__all__ = ["catalog", "migrated_file", "model", "play", "queue", "settings", "stage"]


@pytest.fixture
def settings(tmp_path, migrated_file):
    return migrated_settings_at(
        tmp_path, migrated_file, lease_s=2.0, beat_s=0.4, poll_s=0.1, stop_timeout_s=5.0
    )


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
