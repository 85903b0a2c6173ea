"""mitmproxy (PyPI) as an injecting proxy in a devcontainer, of configuration/mitmproxy: it runs as root in the
container, with the secret in a file that the agent cannot read; iptables leaves the agent no way but through it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compare.installed import MITMPROXY_VERSION, mitmproxy
from compare.laboratory import UID
from compare.peers.devcontainer import started
from compare.sandbox import PIDS, Sandbox, Task

CONFIGURATION = Path(__file__).parents[1] / "configuration/mitmproxy"
_LOG = "/var/log/proxy/flows.log"


def version() -> str:
    mitmproxy()
    return MITMPROXY_VERSION


@contextmanager
def made(task: Task) -> Iterator[Sandbox]:
    secrets = task.laboratory.home / ".secrets"
    secrets.mkdir(exist_ok=True)
    file = secrets / "proxy-secrets.json"
    file.write_text(json.dumps({"COMPARE_TOKEN": task.place.secret}))
    for one in (secrets, file):
        os.chown(one, UID, UID)
    secrets.chmod(0o700)
    file.chmod(0o600)
    engine = task.docker()
    label = f"label=devcontainer.local_folder={task.place.project.workspace}"
    with started(task, CONFIGURATION, {"{mitmproxy}": str(mitmproxy()), "{secrets}": str(file)}) as execute:
        container = engine("ps", "--quiet", "--filter", label)
        yield Sandbox(
            first=execute,
            later=execute,
            environment=task.environment(),
            workspace=f"/workspaces/{Path(task.place.project.workspace).name}",
            proxy="environment",
            sends=False,
            pids=PIDS,
            log=lambda: engine("exec", "--user", "root", container, "cat", _LOG),
        )
