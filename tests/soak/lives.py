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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cloister.sandbox import registry
from cloister.sandbox.registry import Process
from tests.world import Cloister

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
    """The processes of a live sandbox, by what they are: those of `schedule.Victim`."""

    sandbox: str
    processes: dict[str, Process]

    @property
    def gateway(self) -> int:
        """Its number; it lives as long as the sandbox."""
        return self.processes["gateway"].pid


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


def processes(pids: Iterable[int]) -> list[Process]:
    """Those that run, as their numbers alone cannot tell: numbers are used again."""
    return [found for pid in pids if (found := registry.identify(pid)) is not None]


def parts(cloister: Cloister, traces: Traces) -> Parts | None:
    """The one live sandbox of this world, once it is whole; None until then."""
    try:
        runs = list((cloister.state / "runs").glob("*.json"))
        content = json.loads(runs[0].read_text())
        (session, started), init, others = content["session"], content["init"][0], content["others"]
        sandbox, cgroup = str(content["sandbox"]), str(content["cgroup"])
    except (OSError, ValueError, IndexError, TypeError):
        return None
    inside = children(init)
    pids = {
        "session": session, "gateway": others[0][0], "bubblewrap": others[1][0], "init": init, "first": inside[0],
    } if len(others) > 2 and inside else {}  # fmt: skip
    found = {name: one for name, pid in pids.items() if (one := registry.identify(pid)) is not None}
    if not found or len(found) < len(pids) or found["session"].started != started:
        return None
    traces.sandboxes.add(sandbox)
    traces.cgroups |= {cgroup} - {""}
    for kind in NAMESPACES:
        with suppress(OSError):
            traces.namespaces[os.readlink(f"/proc/{init}/ns/{kind}")] = ticks()
    return Parts(sandbox=sandbox, processes={**found, "agent": found["first"]})


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
    until_dead(list(found.processes.values()), f"of {found.sandbox}")


def until_dead(those: Sequence[Process], what: str) -> None:
    """Block until none of these runs."""
    until(lambda: not any(map(registry.alive, those)), f"these processes end: {those}, {what}")


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
    assert process.stdout is not None
    made = Traffic(process=process)
    try:
        yield made
    finally:
        if process.poll() is None:  # once it has been waited for, its number may be another's
            os.killpg(process.pid, signal.SIGKILL)
        if not process.stdout.closed:
            made.end(traces)
