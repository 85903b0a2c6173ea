"""`make compare`, for real: a plain `docker run` is breached because the origins saw it, and holds what it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
PROBES = ("NET-1", "NET-2", "NET-6", "NAME-4", "SECRET-1", "FS-1", "HTTP-7", "K-7")


@pytest.fixture(scope="module")
def cells() -> dict[str, Any]:  # Any: JSON
    if os.geteuid() != 0:
        pytest.skip("the laboratory needs root")
    before = namespaces()
    done = subprocess.run(
        [sys.executable, "-m", "compare", "--only", "docker", "--probes", ",".join(PROBES), "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (peer,) = json.loads(done.stdout)["peers"]
    assert peer["trouble"] == ""
    assert namespaces() == before, "the machine's own network is as it was"
    assert not list(Path("/var/tmp").glob(f"cloister-compare-{os.getpid()}-*"))
    found: dict[str, Any] = peer["probes"]
    return found


def namespaces() -> list[str]:
    """The machine's interfaces, but those of other tests' engines."""
    listed = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    names = [line.split(": ")[1] for line in listed.splitlines()]
    return [name for name in names if name.startswith(("lan", "wan"))]


def test_what_the_origins_saw_is_the_evidence(cells: dict[str, Any]) -> None:
    for probe in ("NET-1", "NET-2"):
        assert cells[probe]["finding"] == "breached"
        assert f"seen outside: attack-{probe}" in cells[probe]["evidence"]
    assert cells["NAME-4"]["finding"] == "breached"
    assert cells["SECRET-1"]["finding"] == "breached"
    assert "environment" in cells["SECRET-1"]["reason"]


def test_what_was_planted_was_seen_by_the_host(cells: dict[str, Any]) -> None:
    planted = "seen from outside: .envrc was written"
    assert cells["FS-1"]["finding"] == "breached"
    assert planted in cells["FS-1"]["evidence"]


def test_what_it_holds_it_is_given(cells: dict[str, Any]) -> None:
    assert cells["NET-6"]["finding"] == "held"


def test_what_enters_later_was_tried(cells: dict[str, Any]) -> None:
    assert cells["K-7"]["finding"] == "breached"
    assert cells["K-7"]["evidence"][0].startswith("exec: ")


def test_what_it_does_not_offer_was_not_tried(cells: dict[str, Any]) -> None:
    assert cells["HTTP-7"]["finding"] == "not offered"
    assert cells["HTTP-7"]["reason"] == "no rules for methods"
    assert (cells["HTTP-7"]["tried"], cells["HTTP-7"]["evidence"]) == (0, [])
