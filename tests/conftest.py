"""What all tests share: how properties are tried, and the engines, one of each for a whole run.

Properties are tried with the same inputs every time, at any speed: nothing fails by chance. New ones: `make fuzz`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.engines import docker, engine_base, podman, rootless_podman  # noqa: F401  # fixtures

settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
