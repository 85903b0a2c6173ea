"""What containers are compared with: a private Docker engine (tests/engines.py), and the devcontainer CLI from npm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from world import CACHE, REPOSITORY, UnavailableError

DEVCONTAINER_VERSION = "0.89.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """A started engine that has `image`; `environment` is what a client needs."""

    environment: Mapping[str, str]
    image: str

    def processes(self) -> list[int]:
        """Those of all of its containers, with the process of the engine's that keeps each (the shim)."""
        found = set()
        for container in self._ask("ps", "-q").split():
            pid = int(self._ask("inspect", "--format", "{{.State.Pid}}", container))
            found |= {pid, _parent(pid)}
        return sorted(found)

    def _ask(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **self.environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()


@contextmanager
def private_docker() -> Iterator[Docker]:
    """The tests' engine. UnavailableError says why there is none."""
    sys.path.insert(0, str(REPOSITORY))
    import pytest
    from tests import engines

    with ExitStack() as stack:
        try:
            engine = stack.enter_context(engines.started_docker())
        except (pytest.fail.Exception, pytest.skip.Exception) as error:
            raise UnavailableError(str(error)) from error
        yield Docker(environment=engine.environment, image=engines.IMAGE)


def devcontainer() -> Path:
    """npm's @devcontainers/cli; installed into .cache/ once."""
    program = CACHE / "devcontainer/node_modules/.bin/devcontainer"
    if not program.exists():
        package = f"@devcontainers/cli@{DEVCONTAINER_VERSION}"
        install = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(CACHE / "devcontainer"),
            package,
        ]
        try:
            done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=180)
        except FileNotFoundError as error:
            raise UnavailableError("npm is not installed") from error
        if done.returncode != 0:
            raise UnavailableError("npm could not install it")
    return program


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
