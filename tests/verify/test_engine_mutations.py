"""Probes find weakened sandboxes of a container engine too (as root; tests/contract holds what is not weakened)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cloister.verify.run import Options, verify
from cloister.verify.verdict import Outcome, exit_code
from tests import engine_python
from tests.engines import Engine
from tests.verify.engine_mutations import ENGINE_MUTATIONS
from tests.verify.test_mutations import command

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def image(docker: Engine) -> Iterator[str]:
    with engine_python.image(docker) as name:
        yield name


@pytest.fixture
def environ(docker: Engine, image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """A home whose configuration names the engine, with a project in which the test stands."""
    if os.geteuid() != 0:
        pytest.skip("the private dockerd is root's")
    home = Path(tempfile.mkdtemp(prefix="cloister-verify-test-", dir="/var/tmp"))
    for directory in ("project", ".config/cloister"):
        (home / directory).mkdir(parents=True)
    (home / ".config/cloister/config.toml").write_text(
        f'[sandbox]\nruntime = "docker"\nimage = "{image}"\nmemory = "512m"\npids = 200\n'
    )
    monkeypatch.chdir(home / "project")
    found = {"USER": "someone", "PATH": os.environ["PATH"], **docker.environment, "HOME": str(home)}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    yield found
    shutil.rmtree(home)


@pytest.mark.parametrize("name", sorted(ENGINE_MUTATIONS))
def test_a_weakened_container_is_breached(
    name: str, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weaken, probes = ENGINE_MUTATIONS[name]
    weaken(monkeypatch, tmp_path)
    report = verify(Options(command=command, only=probes), environ, lambda _pass, _probe: None)
    missed = {
        one.probe.id: (one.outcome.value, one.evidence)
        for one in report.results
        if one.outcome is not Outcome.BREACHED
    }
    assert missed == {}
    assert exit_code(report.results) == 1
    assert report.runtime == "docker"
