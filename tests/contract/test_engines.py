"""The engines that the other tests rely on do start, and are the tests' own."""

from __future__ import annotations

import pytest

from tests.engines import IMAGE, Engine

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("name", ["docker", "podman", "rootless_podman"])
def test_engine_runs_the_image(name: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(name)
    assert (
        engine("run", "--rm", "--network", "none", IMAGE, "sh", "-c", "id -u; ls /sys/class/net") == "0\nlo"
    )
