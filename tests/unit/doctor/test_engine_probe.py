"""What is found of an engine: the client is the fake one, alone on PATH."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from cloister.doctor import engine_probe
from cloister.doctor.engines import EngineFacts
from cloister.images import build
from cloister.images.build_argv import LABEL_RECIPE
from cloister.images.render import tag

FAKE = Path(__file__).parents[2] / "fakes" / "container_engine.py"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """The directory of a fake `docker`."""
    directory = tmp_path / "engine"
    (directory / "images").mkdir(parents=True)
    program = directory / "docker"
    program.write_text(f"#!{sys.executable}\n{FAKE.read_text()}")
    program.chmod(0o755)
    return directory


def look(engine: Path, name: str = "docker", *untrusted: str) -> EngineFacts:
    return engine_probe.look(name, {"PATH": str(engine)}, untrusted=untrusted)


def test_no_client(engine: Path) -> None:
    found = look(engine, "podman")
    assert (found.program, "apt-get install podman" in found.remedy) == ("", True)


def test_a_client_in_the_project_is_none(engine: Path) -> None:
    assert look(engine, "docker", str(engine.parent)) != look(engine)
    assert os.path.dirname(look(engine, "docker", str(engine.parent)).program) != str(engine)


def test_an_engine_and_its_images(engine: Path) -> None:
    recipe = build.image_recipe("base").recipe_hash()
    for name, label in (("base", recipe), ("python", "an older one")):
        path = engine / "images" / tag(name).replace("/", "_")
        path.write_text(json.dumps({"Id": "sha256:1", "Labels": {LABEL_RECIPE: label}}))
    found = look(engine)
    assert (found.program, found.error, found.version) == (f"{engine}/docker", "", "20.10.24")
    assert (found.local, found.rootless, found.limits) == (True, False, True)
    assert (found.images, found.outdated) == (("base", "python"), ("python",))
    commands = {json.loads(line)["argv"][0] for line in (engine / "calls").read_text().splitlines()}
    assert commands <= {"info", "context", "version", "buildx", "image"}, "it only looks"


def test_an_engine_that_does_not_answer(engine: Path) -> None:
    (engine / "fail-info").write_text(
        "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n"
    )
    found = look(engine)
    assert found.program == f"{engine}/docker"
    assert found.error.startswith("the docker engine does not answer (Cannot connect")
    assert "systemctl start docker" in found.remedy


def test_a_client_that_cannot_be_started(engine: Path) -> None:
    (engine / "docker").write_text("#!/nonexistent/interpreter\n")
    found = look(engine)
    assert found.error
    assert found.remedy
