"""Sandboxes that stay: `up`, a warm `exec`, a shell, and many at once, beside docker, the devcontainer CLI and srt.

The rounds are interleaved. A runtime is a parameter: docker is measured where a private engine can be started
(tests/engines.py), on its image of a minimal Debian.
"""

from __future__ import annotations

import json
import os
import pty
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from containers import Docker, devcontainer, private_docker
from report import Row, at_most, not_measured
from supervisor import last_line, memory_mb

from world import UnavailableError, World, cloister_program, srt

UP_BAR, EXEC_BAR = 2.0, 1.5  # times docker's own (DESIGN)
EMBEDDED, DOCKER = "embedded", "docker"
IDLE = ("sleep", "infinity")
PATIENCE_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to keep a sandbox, each step a command: started, entered, entered with a terminal, and removed."""

    name: str
    environment: Mapping[str, str]
    directory: Path
    up: Sequence[str]
    down: Sequence[str]
    execute: Sequence[str]
    shell: Sequence[str] = ()


@dataclass(slots=True)
class Times:
    """Milliseconds by step and way, of all rounds."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, step: str, way: str, start: float) -> None:
        self.values.setdefault((step, way), []).append((time.perf_counter() - start) * 1000)

    def median(self, step: str, way: str) -> float | None:
        values = self.values.get((step, way))
        return None if values is None else statistics.median(values)


def rows(world: World, *, rounds: int, runs: int, at_once: int, runtimes: Sequence[str]) -> list[Row]:
    with ExitStack() as stack:
        result: list[Row] = []
        docker: Docker | None = None
        try:
            docker = stack.enter_context(private_docker())
        except UnavailableError as error:
            result.append(not_measured("docker", str(error)))
        chosen = [runtime for runtime in runtimes if runtime != DOCKER or docker is not None]
        ways = [_cloister(world, runtime, docker) for runtime in chosen]
        if docker is not None:
            ways.append(_plain_docker(world, docker))
            try:
                ways.append(_devcontainer(world, docker))
            except UnavailableError as error:
                result.append(not_measured("devcontainer", str(error)))
        for way in ways:
            stack.callback(_give_up, way)
        times = _measure(ways, rounds=rounds, runs=runs)
        _measure_srt(world, times, runs, result)
        for runtime in chosen:
            result += _steps(runtime, times)
        result += _many(world, chosen, docker, at_once)
        return result


def _cloister(world: World, runtime: str, docker: Docker | None, number: str = "") -> Way:
    directory = world.base / f"{runtime}{number}"
    directory.mkdir()
    config = world.base / f"config-{runtime}"
    environment = {
        **world.environment(),
        "SHELL": "/bin/bash",
        "XDG_CONFIG_HOME": str(config),
    }  # bash: as docker's
    settings = f'[sandbox]\nruntime = "{runtime}"\n'
    if docker is not None and runtime == DOCKER:
        settings += f'image = "{docker.image}"\n'
        environment |= {name: value for name, value in docker.environment.items() if name != "HOME"}
    (config / "cloister").mkdir(parents=True, exist_ok=True)
    (config / "cloister/config.toml").write_text(settings)
    program = cloister_program()
    return Way(
        name=f"cloister {runtime}",
        environment=environment,
        directory=directory,
        up=[program, "up"],
        down=[program, "stop", "--time", "0"],
        execute=[program, "exec", "--", "true"],
        shell=[program, "shell"],
    )


def _plain_docker(world: World, docker: Docker, number: str = "") -> Way:
    name = f"cloister-bench-{os.getpid()}{number}"
    return Way(
        name="docker",
        environment={**world.environment(), **docker.environment},
        directory=world.project,
        up=["docker", "run", "-d", "--network", "none", "--name", name, docker.image, *IDLE],
        down=["docker", "rm", "-f", name],
        execute=["docker", "exec", name, "true"],
        shell=["docker", "exec", "-it", name, "bash", "-l"],
    )


def _devcontainer(world: World, docker: Docker) -> Way:
    program = str(devcontainer())
    directory = world.base / "devcontainer"
    (directory / ".devcontainer").mkdir(parents=True)
    settings = {"image": docker.image, "runArgs": ["--network=none"], "updateRemoteUserUID": False}
    (directory / ".devcontainer/devcontainer.json").write_text(json.dumps(settings))
    place = ["--workspace-folder", str(directory)]
    label = f"label=devcontainer.local_folder={directory}"
    return Way(
        name="devcontainer",
        environment={**world.environment(), **docker.environment},
        directory=directory,
        up=[program, "up", *place],
        down=["sh", "-c", 'docker ps -aq --filter "$1" | xargs -r docker rm -f', "sh", label],
        execute=[program, "exec", *place, "true"],
    )


def _measure(ways: Sequence[Way], *, rounds: int, runs: int) -> Times:
    """`rounds` of up and down; within the last one, `runs` of the commands. The first round does not count."""
    times = Times()
    for number in range(rounds + 1):
        for way in ways:
            start = time.perf_counter()
            _run(way, way.up)
            if number:
                times.add("up", way.name, start)
        if number == rounds:
            _commands(ways, runs, times)
        for way in ways:
            _run(way, way.down)
    return times


def _commands(ways: Sequence[Way], runs: int, times: Times) -> None:
    steps: dict[str, Callable[[Way], None]] = {"exec": lambda way: _run(way, way.execute), "shell": _shell}
    for number in range(runs + 1):
        for step, act in steps.items():
            for way in ways:
                if step == "shell" and not way.shell:
                    continue
                start = time.perf_counter()
                act(way)
                if number:
                    times.add(step, way.name, start)


def _measure_srt(world: World, times: Times, runs: int, result: list[Row]) -> None:
    """It keeps nothing: each command is a sandbox."""
    try:
        argv, path = srt()
    except UnavailableError as error:
        result.append(not_measured("srt", str(error)))
        return
    command = [*argv, "true"]
    environment = {**world.environment(), "PATH": path}
    way = Way(name="srt", environment=environment, directory=world.project, up=(), down=(), execute=command)
    for _ in range(runs):
        start = time.perf_counter()
        _run(way, command)
        times.add("exec", way.name, start)


def _give_up(way: Way) -> None:
    """Nothing stays where a measurement has failed on the way."""
    subprocess.run(
        list(way.down),
        cwd=way.directory,
        env=dict(way.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )


def _run(way: Way, argv: Sequence[str]) -> None:
    done = subprocess.run(
        list(argv),
        cwd=way.directory,
        env=dict(way.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    if done.returncode:
        raise RuntimeError(f"{way.name}: {' '.join(argv[:3])}: {last_line(done.stderr)}")


def _shell(way: Way) -> None:
    """A log-in shell on a terminal, from the command to its prompt, and out."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(way.directory)
        os.execvpe(way.shell[0], list(way.shell), {**way.environment, "TERM": "xterm"})
    try:
        os.write(terminal, b"exit\n")
        while True:
            try:
                if not os.read(terminal, 4096):
                    break
            except OSError:  # EIO: its other end is closed
                break
    finally:
        os.close(terminal)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"{way.name}: the shell failed")


def _steps(runtime: str, times: Times) -> Iterator[Row]:
    name = f"cloister {runtime}"
    what = {
        "up": f"cloister up, {runtime}",
        "exec": f"cloister exec -- true, {runtime}",
        "shell": f"cloister shell and exit, {runtime}",
    }
    against = {"up": "docker run -d", "exec": "docker exec", "shell": "docker exec -it"}
    bars = {"up": UP_BAR, "exec": EXEC_BAR}
    for step, text in what.items():
        ours = times.median(step, name)
        if ours is None:
            continue
        theirs = times.median(step, "docker")
        if theirs is None:
            yield Row(what=text, measured=f"{ours:.4g} ms")
        elif step in bars:
            yield at_most(text, ours, theirs, bars[step], unit="ms", against=against[step])
        else:
            yield _beside(text, ours, against[step], theirs)
        for other, words in (("devcontainer", f"devcontainer {step}"), ("srt", "srt")):
            measured = times.median(step, other)
            if measured is not None:
                yield _beside(text, ours, words, measured)


def _beside(what: str, ours: float, against: str, theirs: float) -> Row:
    return Row(
        what=what,
        measured=f"{ours:.4g} ms",
        reference=f"{against} {theirs:.4g} ms",
        ratio=f"{ours / theirs:.3g} ×",
    )


def _many(world: World, runtimes: Sequence[str], docker: Docker | None, count: int) -> Iterator[Row]:
    """`count` at once: until all of them run, and the memory of each, pages that they share counted once (PSS)."""
    theirs = None
    if docker is not None:
        ways = [_plain_docker(world, docker, f"-{number}") for number in range(count)]
        with _all(ways) as seconds:
            theirs = seconds, memory_mb(docker.processes())[1] / count
    for runtime in runtimes:
        ways = [_cloister(world, runtime, docker, f"-{number}") for number in range(count)]
        with _all(ways) as seconds:
            pids = [pid for record in world.records() for pid in _tree(_session(record))]
            if docker is not None and runtime == DOCKER:
                pids += docker.processes()
            memory = memory_mb(pids)[1] / count
        if world.records():
            raise RuntimeError(f"cloister {runtime}: {len(world.records())} are left of {count}")
        yield Row(
            what=f"{count} cloister up at once, {runtime}",
            measured=f"{seconds:.3g} s, {memory:.3g} MB each",
            reference="" if theirs is None else f"docker run -d {theirs[0]:.3g} s, {theirs[1]:.3g} MB each",
            ratio="" if theirs is None else f"{seconds / theirs[0]:.3g} ×, {memory / theirs[1]:.3g} ×",
        )


@contextmanager
def _all(ways: Sequence[Way]) -> Iterator[float]:
    """All of them, started at once; yields the seconds until the last has started."""
    with ThreadPoolExecutor(len(ways)) as pool:
        start = time.perf_counter()
        try:
            list(pool.map(lambda way: _run(way, way.up), ways))
            yield time.perf_counter() - start
        finally:
            list(pool.map(lambda way: _run(way, way.down), ways))


def _session(record: Mapping[str, object]) -> int:
    session = record["session"]
    if not isinstance(session, list):
        raise RuntimeError("a record without its session")
    return int(session[0])


def _tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _tree(int(child)))]
