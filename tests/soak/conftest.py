"""The worlds of the end-to-end tests."""

from tests.e2e.conftest import client_packages, identity, world  # noqa: F401  # fixtures
