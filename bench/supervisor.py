"""A sandbox that is held while its supervisor's memory is read."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from world import World, cloister_argv


@contextmanager
def held(
    world: World, command: Sequence[str], more: Mapping[str, str] | None = None
) -> Iterator[tuple[str, list[int]]]:
    """Run a command that prints a line and then waits for one.

    Yields that line and the supervisor's pids, the session's first. `more` are variables of the user's.
    """
    with subprocess.Popen(
        cloister_argv(*command),
        cwd=world.project,
        env={**world.environment(), **(more or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if process.stdout is None or process.stdin is None or process.stderr is None:
            raise RuntimeError("no pipes to the sandbox")
        line = process.stdout.readline().strip()
        if not line:
            process.kill()
            raise RuntimeError(f"the sandbox ended: {last_line(process.stderr.read())}")
        try:
            yield line, [process.pid, *_gateways(process.pid)]
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def until_idle(pids: Sequence[int]) -> None:
    """Wait until none of them has used the processor for a while: the gateway loads while the command runs."""
    quiet, before = 0, 0
    while quiet < 3:
        time.sleep(0.1)
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        used = sum(int(field[11]) + int(field[12]) for field in fields)
        quiet, before = (quiet + 1 if used == before else 0), used


def memory_mb(pids: Sequence[int]) -> tuple[float, float]:
    """The sums of RSS and PSS."""
    rss = pss = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, *rest = line.split()
            rss += int(rest[0]) if name == "Rss:" else 0
            pss += int(rest[0]) if name == "Pss:" else 0
    return rss * 1024 / 1e6, pss * 1024 / 1e6


def peak_memory_mb(pids: Sequence[int]) -> float:
    """The sum of the highest RSS that each has had."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def _gateways(session: int) -> list[int]:
    """The session's children that are no bubblewrap: the gateway (and its helpers)."""
    children = Path(f"/proc/{session}/task/{session}/children").read_text().split()
    return [int(pid) for pid in children if os.path.basename(os.readlink(f"/proc/{pid}/exe")) != "bwrap"]
