"""One torch thread: on busy cores, threads that wait for each other make a tiny model ten times slower."""

import pytest
import torch

from tests.catalog.fixtures import migrated_file
from tests.worker.installation import Installation

__all__ = ["migrated_file"]


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def installation(tmp_path, migrated_file):
    with Installation.opened(tmp_path, migrated_file) as opened:
        yield opened
