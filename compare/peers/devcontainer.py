"""A devcontainer with an allow-list by iptables, made by the devcontainer CLI (npm: @devcontainers/cli) of
configuration/devcontainer: the agent is an ordinary user, who may run the firewall's script as root and nothing else.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from compare.installed import DEVCONTAINER_VERSION, devcontainer
from compare.laboratory import UID
from compare.sandbox import PIDS, Sandbox, Task, UnavailableError, as_user, reachable

CONFIGURATION = Path(__file__).parents[1] / "configuration/devcontainer"
_UP_S = 240


def version() -> str:
    reachable(devcontainer())
    return DEVCONTAINER_VERSION


@contextmanager
def made(task: Task) -> Iterator[Sandbox]:
    with started(task, CONFIGURATION, {}) as execute:
        yield Sandbox(
            first=execute,
            later=execute,
            environment=task.environment(),
            workspace=f"/workspaces/{Path(task.place.project.workspace).name}",
            pids=PIDS,
        )


@contextmanager
def started(task: Task, configuration: Path, values: Mapping[str, str]) -> Iterator[list[str]]:
    """`devcontainer up` with that configuration in the workspace, {…} filled in; how a command is run in it."""
    engine = task.docker()
    workspace = Path(task.place.project.workspace)
    directory = workspace / ".devcontainer"
    shutil.copytree(configuration, directory)
    shutil.copy(task.laboratory.ca_file, directory / "laboratory.crt")
    file = directory / "devcontainer.json"
    text = file.read_text()
    for name, value in values.items():
        text = text.replace(name, value)
    file.write_text(text)
    for one in (directory, *directory.iterdir()):
        shutil.chown(one, UID, UID)
    program = str(devcontainer())
    place = ["--workspace-folder", str(workspace)]
    try:
        done = subprocess.run(
            as_user([program, "up", *place]),
            env=task.environment(), cwd=workspace, capture_output=True, text=True, check=False, timeout=_UP_S,
        )  # fmt: skip
        if done.returncode:
            raise UnavailableError(f"devcontainer up: {(done.stderr + done.stdout).strip()[-1500:]}")
        yield [program, "exec", *place]
    finally:
        label = f"label=devcontainer.local_folder={workspace}"
        for container in engine("ps", "--all", "--quiet", "--filter", label).split():
            engine("rm", "--force", container)
