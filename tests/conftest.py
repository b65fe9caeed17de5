"""How hypothesis runs here, that interrupts are heard, and the servers that some tests need."""

import signal
import sys
import uuid

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "condu", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("condu")


@pytest.fixture(scope="session", autouse=True)
def _interrupts_are_heard() -> None:
    """A shell starts what runs in its background deaf to SIGINT, and the tests' processes would be, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def postgresql_url():
    """The URL of an empty PostgreSQL database of the test's own."""
    from tests import servers  # noqa: PLC0415 - a second, and no test that needs none should pay it

    return servers.create_database(f"test_{uuid.uuid4().hex}")


@pytest.fixture
def s3_place(tmp_path):
    """A place for blobs on an S3 server, the test's own."""
    from tests import servers  # noqa: PLC0415

    return servers.place_at(f"test-{uuid.uuid4().hex}", tmp_path / "cache")


@pytest.fixture(scope="session", autouse=True)
def _servers_stop():
    yield
    if servers := sys.modules.get("tests.servers"):
        servers.stop()
