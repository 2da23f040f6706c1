"""Settings for all tests."""

from hypothesis import HealthCheck, settings

# Tests promise results, not speed, and must give the same verdict on every machine, however busy.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")
