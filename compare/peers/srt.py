"""sandbox-runtime (npm: @anthropic-ai/sandbox-runtime), the command `srt`, with the settings of configuration/srt.json:
its README's recipe for reading the workspace alone, hosts named, and the credential masked with TLS termination.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.world import SRT_VERSION, srt
from bench.world import UnavailableError as NotInstalledError

from compare.sandbox import Sandbox, Task, UnavailableError, reachable

SETTINGS = Path(__file__).parents[1] / "configuration/srt.json"


def version() -> str:
    try:
        argv, path = srt()
    except NotInstalledError as error:
        raise UnavailableError(str(error)) from error
    reachable(Path(argv[0]))
    node = subprocess.run(
        ["node", "--version"], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    return f"{SRT_VERSION} (Node {node.stdout.strip()})"


@contextmanager
def made(task: Task) -> Iterator[Sandbox]:
    argv, path = srt()
    settings = task.laboratory.base / "srt-settings.json"
    settings.write_text(
        json.dumps(json.loads(SETTINGS.read_text().replace("{home}", str(task.laboratory.home))))
    )
    settings.chmod(0o644)
    yield Sandbox(
        first=[*argv, "--settings", str(settings), "-c"],
        quoted=True,
        environment={**task.environment(), "PATH": path},
        workspace=task.place.project.workspace,
        proxy="environment",
    )
