"""`cloister verify` on every runtime: every claim holds, from the first process and from a later one."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from cloister.verify.probes import PROBES
from tests.contract.conftest import World
from tests.engines import IMAGE, Engine

pytestmark = pytest.mark.timeout(600)  # rootless Podman copies whole images
WITH_PYTHON = "cloister-test-python"
_PYTHON = "/usr/bin/python3"


@pytest.fixture
def python(world: World) -> Iterator[World]:
    """The image has a Python: that of this host's system, which is of the same release as the image."""
    if world.engine is not None:
        _add_python(world.engine)
        file = world.cloister.home / ".config/cloister/config.toml"
        world.cloister.configure(file.read_text().replace(f'"{IMAGE}"', f'"{WITH_PYTHON}:latest"'))
    yield world
    if world.engine is not None:
        world.engine("rmi", "--force", WITH_PYTHON, check=False)


def _add_python(engine: Engine) -> None:
    name = f"cloister-test-python-{os.getpid()}"
    engine("create", "--name", name, "--network", "none", IMAGE, "true")
    try:
        engine("cp", "-", f"{name}:/", stdin=_system_python())
        engine("commit", name, WITH_PYTHON)
    finally:
        engine("rm", "--force", name)


def _system_python() -> bytes:
    program = os.path.realpath(_PYTHON)
    library = subprocess.run(
        [_PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    modules = [f"{library}/lib-dynload/{one}" for one in os.listdir(f"{library}/lib-dynload")]
    linked = subprocess.run(["ldd", program, *modules], capture_output=True, text=True, check=False).stdout
    needed = {path for path in re.findall(r"(/\S+\.so\S*)", linked) if not path.startswith(library)}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        archive.add(program, _PYTHON)
        archive.add(library, library, filter=lambda one: None if "__pycache__" in one.name else one)
        for path in sorted(needed - {found for found in needed if found.endswith(":")}):
            archive.add(path, path if path.startswith("/usr/") else f"/usr{path}")
    return content.getvalue()


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
