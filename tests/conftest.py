"""How hypothesis runs here: the same examples every time and no clock, for machines are slow and shared."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "condu", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("condu")
