"""The worlds of a soak before anything happens in them: homes, configurations, ports, and how their files are read."""

from __future__ import annotations

import json
import random
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.origins import Authority
from tests.soak.inside import places
from tests.soak.lives import Traces
from tests.world import Cloister

CANARIES = {"api": "sesame/open+R3al0123456789abcdef", "git": "git-c4nary/98765+zyxwvutsrqpo"}
ORIGINS = (
    places.API, places.FAULT, places.CHAT, places.GIT, places.RULE, places.SINK, places.HALF, places.SPLICE,
    places.PLAIN, places.LINE, places.EVIL,
)  # fmt: skip


@dataclass(kw_only=True)
class World:
    """One project of one home."""

    name: str
    cloister: Cloister
    traces: Traces = field(default_factory=Traces)


def configuration(ca: Path, clients: Path, ports: dict[str, int]) -> str:
    """Of every world."""
    pins = "\n".join(f'"{name}" = "127.0.0.1:{port}"' for name, port in ports.items())
    rules = "\n".join(
        f'[[network.rule]]\nhost = "{name}"\nmethods = ["GET", "POST"]\npaths = ["/**"]'
        for name in (places.RULE, places.SINK, places.HALF)
    )
    granted = [
        places.SPLICE,
        places.PLAIN,
        places.DEAD,
        places.LOST,
        f"tcp://{places.LINE}:{places.LINE_PORT}",
    ]
    return f"""
[sandbox]
read_only = ["{clients}"]
[network]
allow = {json.dumps(granted)}
upstream_ca = ["{ca}"]
[network.hosts]
{pins}
{rules}
[[credential]]
name = "api"
source = "env:REAL_API_TOKEN"
hosts = ["{places.API}", "{places.FAULT}", "{places.CHAT}"]
inject = "bearer"
env = "API_TOKEN"
[[credential]]
name = "git"
source = "env:REAL_GIT_TOKEN"
hosts = ["{places.GIT}"]
inject = "basic:x-access-token"
[git]
push = ["refs/heads/agent/*"]
"""


def prepare(cloister: Cloister, clients: Path, authority: Authority, ports: dict[str, int]) -> None:
    """Configure one world, with the credentials' values where their sources look."""
    ca = cloister.write(cloister.home / "ca.pem", authority.pem)
    cloister.configure(configuration(ca, clients, ports))
    cloister.directory(cloister.project / "results")
    cloister.directory(cloister.base / "tmp")
    cloister.extra_environment |= {
        "REAL_API_TOKEN": CANARIES["api"], "REAL_GIT_TOKEN": CANARIES["git"],
        "TMPDIR": str(cloister.base / "tmp"), "RES_OPTIONS": "timeout:1 attempts:1",
    }  # fmt: skip


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """Below those that the kernel gives to others while ours are closed."""
    found: dict[str, int] = {}
    rng = random.SystemRandom()
    while len(found) < len(names):
        port = rng.randrange(20000, 32000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in found.values():
                found[names[len(found)]] = port
    return found


def rows_of(path: Path, *, whole: bool = True) -> list[dict[str, object]]:
    """Lines of JSON. `whole`: the last one is too, or it is an error; a killed client's may be cut."""
    rows = []
    for line in path.read_bytes().split(b"\n"):
        try:
            if line:
                rows.append(json.loads(line))
        except ValueError:
            if whole:
                rows.append({"event": "?", "sandbox": "", "text": repr(line)})
    return rows
