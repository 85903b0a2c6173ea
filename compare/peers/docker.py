"""`docker run` with the workspace mounted and the token in a variable: plain, otherwise as Docker is by default; or
hardened, with the options that guides to it name.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from compare.engine import IMAGE
from compare.laboratory import UID
from compare.sandbox import MEMORY_BYTES, PIDS, SECRET_VARIABLE, SYSTEM_PATH, Sandbox, Task, UnavailableError

# No capability, nothing gained by set-user-id programs, an ordinary user, limits, and a root that nothing writes.
HARDENED = (
    "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{UID}:{UID}", "--pids-limit", str(PIDS),
    "--memory", str(MEMORY_BYTES), "--ulimit", "core=0:0", "--read-only", "--tmpfs", "/tmp:nosuid,nodev,noexec,size=1g",
)  # fmt: skip
_NAME = "compare-docker"
_CA = "/usr/local/share/laboratory.pem"


@dataclass(frozen=True, kw_only=True)
class Docker:
    """`options` are given to `docker run` beside those of mounting and the token."""

    options: Sequence[str] = ()

    def version(self) -> str:
        if shutil.which("dockerd", path=SYSTEM_PATH) is None:
            raise UnavailableError("dockerd is not installed")
        done = subprocess.run(
            ["dockerd", "--version"], env={"PATH": SYSTEM_PATH}, capture_output=True, text=True, check=True
        )
        return done.stdout.split(",")[0].removeprefix("Docker version ")

    @contextmanager
    def made(self, task: Task) -> Iterator[Sandbox]:
        engine = task.docker()
        try:
            run = ["docker", "run", "--rm", "--interactive", "--name", _NAME]
            yield Sandbox(
                first=[*run, *_given(task), *self.options, IMAGE],
                later=["docker", "exec", "--interactive", _NAME],
                environment=task.environment(),
                workspace="/workspace",
                pids=PIDS,
            )
        finally:
            if engine("ps", "--all", "--quiet", "--filter", f"name={_NAME}"):
                engine("rm", "--force", _NAME)


def _given(task: Task) -> Sequence[str]:
    return (
        "--volume", f"{task.place.project.workspace}:/workspace", "--workdir", "/workspace",
        "--env", SECRET_VARIABLE,
        "--volume", f"{task.laboratory.ca_file}:{_CA}:ro", "--env", f"SSL_CERT_FILE={_CA}",  # the laboratory's
    )  # fmt: skip
