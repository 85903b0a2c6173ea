"""`cloister[inspect]`: inspect-ai's own checks of a sandbox, and an evaluation, with the real inspect-ai."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.test_lifecycle import eventually
from tests.engines import IMAGE, Engine
from tests.world import ROOT, Cloister

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(600)]
FILES = ROOT / "tests/inspect"
SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


@pytest.fixture(scope="session")
def inspect_python(installed: Path) -> Iterator[Path]:
    """An interpreter with inspect-ai and the installed cloister."""
    theirs = ROOT / ".cache/inspect" / SITE
    if not (theirs / "inspect_ai").is_dir():
        pytest.fail("inspect-ai is missing: tools/setup-tests.sh installs it")
    with tempfile.TemporaryDirectory(prefix="cloister-inspect-ai-", dir="/var/tmp") as directory:
        base = Path(directory)
        base.chmod(0o755)
        argv = [os.path.realpath(sys.executable), "-m", "venv", "--without-pip", str(base / "venv")]
        subprocess.run(argv, check=True, timeout=60)
        ours = installed.parents[1] / SITE
        (base / "venv" / SITE / "both.pth").write_text(f"{ours}\n{theirs}\n")
        yield base / "venv/bin/python"


@pytest.fixture
def inspect_ai(cloister: Cloister, inspect_python: Path) -> Cloister:
    """Its world: `python` in the place of cloister's command, files and logs in the project, its own TMPDIR."""
    probe = [*cloister.identity.prefix, str(inspect_python), "-c", "import inspect_ai, cloister"]
    if subprocess.run(probe, capture_output=True, check=False, timeout=120).returncode:
        pytest.skip("an ordinary user cannot read this checkout's .cache")
    for file in FILES.glob("*.py"):
        cloister.write(cloister.project / file.name, file.read_text())
    cloister.configure('[sandbox]\nenv = { COLOUR = "red" }\n')
    cloister.command = inspect_python
    cloister.extra_environment = {
        "TMPDIR": str(cloister.directory(cloister.base / "tmp")),
        "PYTHONDONTWRITEBYTECODE": "1",
        "INSPECT_LOG_DIR": str(cloister.directory(cloister.base / "logs")),
        "INSPECT_LOG_FORMAT": "json",
        "INSPECT_DISPLAY": "plain",
    }
    return cloister


def left(world: Cloister) -> list[str]:
    """Samples' directories, and what cloister keeps of their sandboxes."""
    projects = world.home / ".local/state/cloister/projects"
    return [path.name for base in (world.base / "tmp", projects) if base.exists() for path in base.iterdir()]


def of_samples(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(("cloister-inspect-", "project-"))]


def test_its_own_checks(inspect_ai: Cloister) -> None:
    check(inspect_ai)


@pytest.mark.engine
@pytest.mark.parametrize("identity", ["root"], indirect=True)
def test_its_own_checks_in_docker(inspect_ai: Cloister, docker: Engine) -> None:
    inspect_ai.extra_environment |= {
        "CLOISTER_TEST_RUNTIME": "docker",
        "CLOISTER_TEST_IMAGE": IMAGE,
        "DOCKER_HOST": docker.environment["DOCKER_HOST"],
    }
    check(inspect_ai)


def check(inspect_ai: Cloister) -> None:
    done = inspect_ai("-m", "pytest", "-q", "-rx", "-p", "no:cacheprovider", "conformance.py", timeout_s=500)
    assert done.code == 0, done.out[-5000:]
    assert "1 xfailed" in done.out, done.out[-500:]  # test_exec_as_user
    assert "55 passed" in done.out, done.out[-500:]
    assert of_samples(left(inspect_ai)) == []
    assert not Path("/var/tmp/planted").exists()


def test_an_evaluation(inspect_ai: Cloister) -> None:
    done = inspect_ai("-m", "inspect_ai", "eval", "task.py", timeout_s=200)
    assert done.code == 0, done
    (log,) = (inspect_ai.base / "logs").glob("*.json")
    content = json.loads(log.read_text())
    assert content["status"] == "success", content.get("error")
    (sample,) = content["samples"]
    assert sample["scores"]["kept"]["value"] == 1
    first, second, *_ = [one["content"] for one in sample["messages"] if one["role"] == "tool"]
    assert first.startswith(str(inspect_ai.base / "tmp/cloister-inspect-"))
    user = "agent" if inspect_ai.identity.uid == 0 else inspect_ai.identity.name
    assert second.strip().endswith(f"\n{user}")
    assert of_samples(left(inspect_ai)) == []


def test_an_evaluation_that_is_interrupted_leaves_nothing(inspect_ai: Cloister) -> None:
    inspect_ai.extra_environment["EVAL_LAST"] = "sleep 1000"
    process = inspect_ai.start("-m", "inspect_ai", "eval", "task.py")
    try:
        eventually(lambda: sleeping(inspect_ai), "the sandbox's command runs", deadline_s=60)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    eventually(lambda: of_samples(left(inspect_ai)) == [], "it is removed")
    eventually(lambda: not inspect_ai.processes(), "nothing of it runs")


def sleeping(world: Cloister) -> bool:
    """Whether the last call of the task has begun."""
    for pid in world.processes():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00":
                return True
    return False
