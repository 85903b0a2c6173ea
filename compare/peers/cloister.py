"""cloister itself, with the configuration of configuration/cloister.toml: one command, `cloister run`, and `exec` for
what comes later, on one runtime.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cloister
from compare.engine import IMAGE
from compare.sandbox import MEMORY_BYTES, PIDS, Sandbox, Task, UnavailableError, as_user, reachable

CONFIGURATION = Path(__file__).parents[1] / "configuration/cloister.toml"
PROGRAM = Path(sys.executable).parent / "cloister"


@dataclass(frozen=True, kw_only=True)
class Cloister:
    runtime: str

    def version(self) -> str:
        reachable(PROGRAM)
        return cloister.__version__

    @contextmanager
    def made(self, task: Task) -> Iterator[Sandbox]:
        if self.runtime == "docker":
            task.docker()
        text = CONFIGURATION.read_text()
        for name, value in (
            ("{runtime}", self.runtime), ("{image}", IMAGE), ("{ca}", str(task.laboratory.ca_file)),
            ("{pids}", str(PIDS)), ("{memory}", f"{MEMORY_BYTES >> 20}m"),
        ):  # fmt: skip
            text = text.replace(name, value)
        directory = task.laboratory.base / f"config-{self.runtime}"
        file = directory / "cloister/config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        workspace = task.place.project.workspace
        environment = {**task.environment(), "XDG_CONFIG_HOME": str(directory)}

        def ours(*arguments: str, check: bool = True) -> str:
            done = subprocess.run(
                as_user([str(PROGRAM), *arguments, "-C", workspace]),
                env=environment, cwd=workspace, capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            if check and done.returncode:
                raise UnavailableError(f"cloister {arguments[0]}: {done.stderr.strip()}")
            return done.stdout

        ours("up")
        try:
            yield Sandbox(
                first=[str(PROGRAM), "run", "-C", workspace, "--"],
                later=[str(PROGRAM), "exec", "-C", workspace, "--"],
                environment=environment,
                workspace=workspace,
                proxy="http://127.0.0.1:3128",
                sends=False,
                pids=PIDS,
                log=lambda: ours("logs", "--json", "--all"),
            )
        finally:
            ours("stop", "--all", check=False)
