"""Sandboxes of a soak: started, filled with traffic, killed in one place, and looked at.

Rule 1: what a kill must lead to is waited for with a deadline, and named if it does not come.
Rule 2: everything that could be left by a sandbox is noted while it lives (`Traces`), and looked for at the end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.conftest import Cloister

DEADLINE_S = 60.0
NAMESPACES = ("net", "mnt", "pid", "user", "ipc", "uts", "cgroup")


class UnkeptPromiseError(Exception):
    """Something that the design promises has not come."""


@dataclass(kw_only=True)
class Lived:
    """What the judge needs to know of one life: `killed_at` is None if nothing of it was killed."""

    name: str
    world: str
    victim: str
    lanes: int
    sandbox: str = ""
    killed_at: float | None = None


@dataclass(kw_only=True)
class Traces:
    """What belonged to the sandboxes of a world: directories of cgroups, their ids, namespaces as /proc names them.

    A namespace's number is used again once it is free: `namespaces` has the time after boot, in ticks, when it was last
    seen to be the sandbox's. Who holds that number and is younger holds another namespace.
    """

    namespaces: dict[str, int] = field(default_factory=dict)
    cgroups: set[str] = field(default_factory=set)
    sandboxes: set[str] = field(default_factory=set)
    output: list[str] = field(default_factory=list)  # what cloister itself said


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The processes of a live sandbox, by their pids."""

    sandbox: str
    session: int
    gateway: int
    bubblewrap: int
    init: int
    first: int

    def pids(self) -> dict[str, int]:
        return {
            "session": self.session, "gateway": self.gateway, "bubblewrap": self.bubblewrap, "init": self.init,
            "first": self.first, "agent": self.first,
        }  # fmt: skip


def until(true: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Block until it is. UnkeptPromiseError after the deadline."""
    end = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > end:
            raise UnkeptPromiseError(f"not within {deadline_s:g} s: {what}")
        select.select([], [], [], 0.02)


def ticks() -> int:
    """Time after boot, as /proc/<pid>/stat has it."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def children(pid: int) -> list[int]:
    """Empty if it has gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def parts(cloister: Cloister, traces: Traces) -> Parts | None:
    """The one live sandbox of this world, once it is whole; None until then."""
    try:
        runs = list((cloister.state / "runs").glob("*.json"))
        content = json.loads(runs[0].read_text())
        session, init, others = content["session"][0], content["init"][0], content["others"]
        sandbox, cgroup = str(content["sandbox"]), str(content["cgroup"])
    except (OSError, ValueError, IndexError, TypeError):
        return None
    inside = children(init)
    if len(others) < 3 or not inside or not is_alive(session):
        return None
    traces.sandboxes.add(sandbox)
    traces.cgroups |= {cgroup} - {""}
    for kind in NAMESPACES:
        with suppress(OSError):
            traces.namespaces[os.readlink(f"/proc/{init}/ns/{kind}")] = ticks()
    return Parts(
        sandbox=sandbox, session=session, gateway=others[0][0], bubblewrap=others[1][0], init=init, first=inside[0]
    )  # fmt: skip


def wait_parts(cloister: Cloister, traces: Traces) -> Parts:
    """The same, waited for."""
    found: list[Parts] = []

    def look() -> bool:
        one = parts(cloister, traces)
        found.extend([one] if one else [])
        return bool(found)

    until(look, "a complete record of a sandbox that runs")
    return found[0]


def wait_gone(found: Parts) -> None:
    """Whichever of them was killed, they all end."""
    pids = set(found.pids().values())
    until(lambda: not any(map(is_alive, pids)), f"the processes of {found.sandbox} end: {found}")


@dataclass(kw_only=True)
class Traffic:
    """The clients in a sandbox, told what to do by their standard input."""

    process: subprocess.Popen[str]

    def expect(self, word: str) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != f"{word}\n":
            rest = self.process.communicate(timeout=DEADLINE_S)
            raise UnkeptPromiseError(f"the clients did not say {word!r} but {line!r}: {rest}")

    def rest(self) -> None:
        """Wait until every client has finished what it had in hand, and has gone."""
        self.say("pause")
        self.expect("paused")

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()

    def end(self, traces: Traces) -> int:
        """Wait for the end; what cloister said is kept."""
        out, err = self.process.communicate(timeout=DEADLINE_S)
        traces.output += [out, err]
        return self.process.returncode


def command(
    cloister: Cloister, clients: Path, life: Lived, seed: str, only: tuple[str, ...] = ()
) -> list[str]:
    """The clients' command line in a sandbox."""
    return [
        "env", f"PYTHONPATH={clients}", "PYTHONDONTWRITEBYTECODE=1", "python3", "-m", "inside.main",
        life.name, seed, str(life.lanes), str(cloister.project / "results"), *only,
    ]  # fmt: skip


@contextmanager
def traffic(cloister: Cloister, traces: Traces, *arguments: str) -> Iterator[Traffic]:
    """Clients that are ready; they do not outlive this."""
    process = cloister.start(*arguments)
    made = Traffic(process=process)
    try:
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            made.end(traces)
