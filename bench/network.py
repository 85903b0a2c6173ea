"""What the gateway costs: a download and a request beside direct ones, and the supervisor's memory."""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certificate import write_certificate
from report import Row, at_least
from supervisor import held, last_line, memory_mb, until_idle

from world import World, cloister_argv

HOST = "origin.example.test"
IDLE_HOST = "idle.example.test"
IDLE_PORT = 9000
DOWNLOAD_ROUNDS = 3
LATENCY_ROUNDS = 11  # many short ones: which processes share a core changes between them, and decides much
LATENCY_SECONDS = 0.3
LATENCY_BAR_MS = 0.05
MEMORY_BAR_MB = 30
DESCRIPTORS_BESIDE = 1400  # which the gateway keeps back: pipes, sockets on demand, files


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    web_port: int
    idle_port: int
    ca: Path


def rows(world: World, *, download_bytes: int) -> list[Row]:
    with _origin(world) as origin:
        speeds: dict[str, list[float]] = {"direct": [], "sandbox": []}
        times: dict[str, list[float]] = {"direct": [], "sandbox": []}
        for number in range(LATENCY_ROUNDS):
            for where in ("direct", "sandbox"):
                times[where].append(_client(world, origin, where, "latency", LATENCY_SECONDS))
                if number < DOWNLOAD_ROUNDS:
                    speeds[where].append(_client(world, origin, where, "download", download_bytes))
    speed = {where: statistics.median(values) for where, values in speeds.items()}
    latency = {where: statistics.median(values) for where, values in times.items()}
    added_ms = latency["sandbox"] - latency["direct"]
    return [
        at_least(
            f"spliced download, {download_bytes / 1e9:g} GB, TLS",
            speed["sandbox"], speed["direct"], 0.6, unit="MB/s", against="direct",
        ),
        Row(
            what="spliced request, kept alive, TLS",
            measured=f"{latency['sandbox']:.3f} ms",
            reference=f"direct {latency['direct']:.3f} ms",
            ratio=f"{added_ms:+.3f} ms",
            bar=f"≤ +{LATENCY_BAR_MS} ms",
            met=added_ms <= LATENCY_BAR_MS,
        ),
    ]  # fmt: skip


def memory_rows(world: World, *, connections: int) -> list[Row]:
    wanted = connections
    connections = min(
        wanted, (_raise_open_files(3 * wanted) - DESCRIPTORS_BESIDE) // 2
    )  # two each in the gateway
    with _origin(world) as origin:
        for _ in range(2):  # the first compiles the plan, and its session keeps the validator's memory
            with held(world, ["sh", "-c", "echo ready; read line"]) as (first_line, pids):
                if first_line != "ready":
                    raise RuntimeError(f"the sandbox said {first_line!r}")
                until_idle(pids)
                rss, pss = memory_mb(pids)
                parts = " + ".join(f"{memory_mb([pid])[0]:.1f}" for pid in pids)
        idle = Row(
            # Two processes forked from one: the sum of their RSS counts every page that they share twice.
            what="supervisor, idle (session + gateway, shared pages once)",
            measured=f"{pss:.1f} MB PSS",
            reference=f"RSS {parts} MB",
            bar=f"≤ {MEMORY_BAR_MB} MB",
            met=pss <= MEMORY_BAR_MB,
        )
        del origin
        command = [_python(), "client.py", "idle", IDLE_HOST, str(IDLE_PORT), str(connections)]
        with held(world, command) as (opened, pids):
            rss, pss = memory_mb(pids)
        return [
            idle,
            Row(
                what=f"supervisor with {connections} idle connections"
                + ("" if connections == wanted else " (the host's open files allow no more)"),
                measured=f"{rss:.1f} MB RSS",
                reference=f"{pss:.1f} MB PSS",
                ratio=f"{opened} open",
                bar=f"{connections} open",
                met=opened == str(connections),
            ),
        ]


@contextmanager
def _origin(world: World) -> Iterator[Origin]:
    """Starts the origin, writes the configuration that pins it, and puts the client into the workspace."""
    ca = world.base / "ca.pem"
    certificate = world.base / "origin.pem"
    write_certificate(ca=ca, leaf=certificate, name=HOST)
    here = Path(__file__).parent
    shutil.copy(here / "client.py", world.project)
    argv = [sys.executable, str(here / "origin.py"), str(certificate)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdin is None:
            raise RuntimeError("no pipes to the origin")
        web_port, idle_port = map(int, process.stdout.readline().split())
        world.configure(
            f"""
[network]
allow = ["{HOST}", "tcp://{IDLE_HOST}:{IDLE_PORT}"]
upstream_ca = ["{ca}"]

[network.hosts]
"{HOST}" = "127.0.0.1:{web_port}"
"{IDLE_HOST}" = "127.0.0.1:{idle_port}"
"""
        )
        try:
            yield Origin(web_port=web_port, idle_port=idle_port, ca=ca)
        finally:
            process.stdin.close()
            process.terminate()


def _client(world: World, origin: Origin, where: str, mode: str, amount: float) -> float:
    argv = [
        _python(),
        "client.py",
        mode,
        HOST,
        "443",
        f"{amount:g}" if mode == "latency" else str(int(amount)),
    ]
    argv = cloister_argv(*argv) if where == "sandbox" else [*argv, str(origin.web_port), str(origin.ca)]
    done = subprocess.run(
        argv,
        cwd=world.project,
        env=world.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{mode}, {where}: exit code {done.returncode}: {last_line(done.stderr)}")
    return float(done.stdout)


def _python() -> str:
    """A Python that the sandbox has as well."""
    return shutil.which("python3", path="/usr/bin:/usr/local/bin") or "python3"


def _raise_open_files(count: int) -> int:
    """Raise the limit to `count` if this may be; returns what it is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(count, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, OSError):
        wanted = hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted
