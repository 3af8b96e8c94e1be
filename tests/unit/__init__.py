"""Tests without sockets and without real time."""

from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that has other things to do.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
