"""How hypothesis runs here, the same each time and without a clock; and that interrupts are heard."""

import signal

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
