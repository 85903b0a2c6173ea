"""What all tests share: how properties are tried, the engines and the installed command, one of each for a whole run.

Properties are tried with the same inputs every time, at any speed: nothing fails by chance. New ones: `make fuzz`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.engines import docker, engine_base, podman, remote_docker, rootless_podman  # noqa: F401  # fixtures, here and below
from tests.world import authority, http_origin, installed, line_origin, origin, user  # noqa: F401

settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")
