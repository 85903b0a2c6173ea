"""What an engine says becomes a sentence and what to type (tests/cases/engine_failures.toml)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cloister.runtimes import oci_failures

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/engine_failures.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["brief"])
def test_failure(case: dict[str, str]) -> None:
    error = oci_failures.failure(case["engine"], "start it", case["said"], image="some/image")
    assert error.brief == case["brief"]
    assert case["resolution"] in error.resolution
    if "details" in case:
        assert error.details == case["details"]


def test_a_missing_engine() -> None:
    error = oci_failures.missing("podman")
    assert (error.brief, "apt-get install podman" in error.resolution) == ("podman is not installed", True)


@pytest.mark.parametrize(
    ("said", "image", "container"),
    [
        ("Error response from daemon: No such image: x", True, False),
        ("Unable to find image 'x:1' locally", True, False),
        ("Error: x: image not known", True, False),
        ("Error response from daemon: No such container: x", False, True),
        ('Error: no container with name or ID "x" found: no such container', False, True),
        ("Cannot connect to the Docker daemon", False, False),
    ],
)
def test_what_is_missing(said: str, image: bool, container: bool) -> None:
    assert oci_failures.is_missing_image(said) is image
    assert oci_failures.is_missing_container(said) is container
