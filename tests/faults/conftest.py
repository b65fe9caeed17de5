import pytest

from tests.catalog.fixtures import catalog, migrated_file, model, play, queue, settings, stage
from tests.faults.crew import Crew

__all__ = ["catalog", "migrated_file", "model", "play", "queue", "settings", "stage"]


@pytest.fixture(scope="session")
def importing_crew():
    """The process that imports everything, once for all tests."""
    crew = Crew()
    yield crew
    crew.close()


@pytest.fixture
def crew(importing_crew, tmp_path):
    """Replicas and workers, which are gone at the end."""
    importing_crew.folder = tmp_path
    yield importing_crew
    importing_crew.dismiss()
