"""The fixtures of the contract suite: engines of the tests' own, and the worlds of the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import identity, installed, user, world  # noqa: F401  # fixtures
from tests.engines import docker, engine_base, podman, rootless_podman  # noqa: F401  # fixtures
