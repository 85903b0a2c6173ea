"""`cloister verify` on every runtime: every claim holds, from the first process and from a later one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cloister.verify.probes import PROBES
from tests import engine_python
from tests.contract.conftest import World
from tests.engines import IMAGE

pytestmark = pytest.mark.timeout(600)  # rootless Podman copies whole images


@pytest.fixture
def python(world: World) -> Iterator[World]:
    """The image has a Python: that of this host's system, which is of the same release as the image."""
    if world.engine is None:
        yield world
        return
    with engine_python.image(world.engine) as name:
        file = world.cloister.home / ".config/cloister/config.toml"
        world.cloister.configure(file.read_text().replace(f'"{IMAGE}"', f'"{name}"'))
        yield world


def test_every_probe_holds(python: World) -> None:
    done = python.cloister("verify", "--json", timeout_s=180)
    assert done.out, done
    report = json.loads(done.out)
    assert {one["id"]: one["reason"] for one in report["results"] if one["outcome"] != "held"} == {}
    assert report["runtime"] == python.runtime
    assert len(report["results"]) == len(PROBES)
    assert done.code == 0
    assert python.containers() == []


def test_an_image_without_python_is_said(world: World) -> None:
    if world.engine is None:
        pytest.skip("the embedded runtime shows the host's programs")
    done = world.cloister("verify", timeout_s=180)
    assert done.code == 125
    assert "the sandbox has no Python" in done.err
