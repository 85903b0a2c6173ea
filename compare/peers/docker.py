"""A plain `docker run`: the workspace mounted, the token in the environment, and otherwise as Docker is by default."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from compare.engine import IMAGE
from compare.sandbox import PIDS, SECRET_VARIABLE, SYSTEM_PATH, Sandbox, Task, UnavailableError

_NAME = "compare-plain"
_CA = "/usr/local/share/laboratory.pem"


def version() -> str:
    if shutil.which("dockerd", path=SYSTEM_PATH) is None:
        raise UnavailableError("dockerd is not installed")
    done = subprocess.run(
        ["dockerd", "--version"], env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=True
    )
    return done.stdout.split(",")[0].removeprefix("Docker version ")


def options(task: Task) -> Sequence[str]:
    """What stands between `docker run` and the image."""
    workspace = task.place.project.workspace
    return (
        "--volume", f"{workspace}:/workspace", "--workdir", "/workspace", "--env", SECRET_VARIABLE,
        "--volume", f"{task.laboratory.ca_file}:{_CA}:ro", "--env", f"SSL_CERT_FILE={_CA}",  # the laboratory's
    )  # fmt: skip


@contextmanager
def made(task: Task) -> Iterator[Sandbox]:
    engine = task.docker()
    try:
        yield Sandbox(
            first=["docker", "run", "--rm", "--interactive", "--name", _NAME, *options(task), IMAGE],
            later=["docker", "exec", "--interactive", _NAME],
            environment=task.environment(),
            workspace="/workspace",
            pids=PIDS,
        )
    finally:
        if engine("ps", "--all", "--quiet", "--filter", f"name={_NAME}"):
            engine("rm", "--force", _NAME)
