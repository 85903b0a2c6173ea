"""`cloister verify` on every runtime: every claim holds, from the first process and from a later one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cloister.verify.probes import INSIDE, PROBES
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
    done = python.cloister("verify", "--json", timeout_s=420)
    assert done.out, done
    report = json.loads(done.out)
    assert {one["id"]: one["reason"] for one in report["results"] if one["outcome"] != "held"} == {}
    assert report["runtime"] == python.runtime
    assert len(report["results"]) == len(PROBES)
    assert done.code == 0
    assert python.containers() == []


def test_a_live_sandbox_is_attacked_without_a_trace(python: World) -> None:
    """With every probe that needs nothing of the verification's own, and the others say why not."""
    cloister = python.cloister
    cloister.write(cloister.project / ".env", "TOKEN=1\n")
    cloister.write(cloister.project / ".vscode/settings.json", "{}\n")
    assert cloister("up", timeout_s=120).code == 0
    done = cloister("verify", "--sandbox", "main", "--json", timeout_s=420)
    assert done.out, done
    found = {one["id"]: (one["outcome"], one["reason"]) for one in json.loads(done.out)["results"]}
    tried = {probe.id for probe in PROBES if not probe.own_origin and INSIDE in probe.sides} - {"K-6"}
    assert {name: why for name, why in found.items() if name in tried and why[0] != "held"} == {}
    assert {outcome for name, (outcome, _) in found.items() if name not in tried} == {"not applicable"}
    assert done.code == 0
    assert python.sh("ls -A /tmp").out == ""
    assert cloister("stop", timeout_s=120).code == 0


def test_an_image_without_python_is_said(world: World) -> None:
    if world.engine is None:
        pytest.skip("the embedded runtime shows the host's programs")
    done = world.cloister("verify", timeout_s=420)
    assert done.code == 125
    assert "the sandbox has no Python" in done.err
