"""How long it takes to run `true`: cloister, bare bubblewrap, sandbox-runtime from npm, and Python by itself.

The runs are interleaved, so that whatever else the machine does meanwhile falls on all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from report import Row, at_most, not_measured

from world import UnavailableError, World, bwrap_argv, cloister_argv, srt


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    name: str
    argv: list[str]
    environment: Mapping[str, str]


def rows(world: World, *, runs: int) -> list[Row]:
    environment = world.environment()
    programs = [
        Program(name="python -c pass", argv=[sys.executable, "-c", "pass"], environment=environment),
        Program(name="bwrap", argv=bwrap_argv("true"), environment=environment),
        Program(name="cloister", argv=cloister_argv("true"), environment=environment),
    ]
    missing = ""
    try:
        argv, path = srt()
        programs.append(Program(name="srt", argv=[*argv, "true"], environment={**environment, "PATH": path}))
    except UnavailableError as error:
        missing = str(error)
    medians = _medians(programs, world, runs)
    ours = medians["cloister"]
    result = [
        Row(what="python -c pass", measured=f"{medians['python -c pass']:.4g} ms"),
        at_most("cloister run -- true", ours, medians["bwrap"], 12, unit="ms", against="bwrap"),
    ]
    if missing:
        result.append(not_measured("cloister run -- true, against srt", missing))
    else:
        result.append(at_most("cloister run -- true", ours, medians["srt"], 1 / 6, unit="ms", against="srt"))
    return result


def _medians(programs: list[Program], world: World, runs: int) -> dict[str, float]:
    times: dict[str, list[float]] = {program.name: [] for program in programs}
    for number in range(runs + 1):  # the first run fills caches and compiles the plan; it does not count
        for program in programs:
            start = time.perf_counter()
            done = subprocess.run(
                program.argv,
                cwd=world.project,
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=60,
            )
            elapsed_ms = (time.perf_counter() - start) * 1000
            if done.returncode != 0:
                words = done.stderr.decode(errors="replace").strip()
                raise RuntimeError(f"{program.name} failed with {done.returncode}: {words}")
            if number:
                times[program.name].append(elapsed_ms)
    return {name: statistics.median(values) for name, values in times.items()}
