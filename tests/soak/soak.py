"""One soak: three worlds at once, the origins, and what is killed and cut meanwhile.

    steady   one sandbox for all of it, with a published port: nothing of it is killed, and its gateway is measured
    run      sandboxes of `cloister run`, one after the other, each killed in one place
    kept     a sandbox of `cloister up` that is entered by `exec`, killed, and started again

Rule 1: the order of things is the schedule's; this module only carries it out and collects what was seen.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cloister.sandbox import registry
from tests.fakes.origins import Authority
from tests.soak.inside import places
from tests.soak.ledger import Story
from tests.soak.leftovers import Held, held
from tests.soak.lives import (
    DEADLINE_S,
    Lived,
    Parts,
    Traffic,
    UnkeptPromiseError,
    children,
    command,
    processes,
    traffic,
    until,
    until_dead,
    wait_gone,
    wait_parts,
)
from tests.soak.origins import Orders, Origins
from tests.soak.schedule import Life, Outage, Schedule
from tests.soak.worlds import CANARIES, ORIGINS, World, free_ports, prepare, rows_of
from tests.world import Cloister

_GRACE_S = 1.0  # after the origins are back: what was in hand may still fail
_SAMPLES = 10
_CODES = {"session": -signal.SIGKILL, "gateway": 125, "bubblewrap": 137, "init": 137, "agent": 137, "none": 0}


@dataclass(kw_only=True)
class Seen:
    """What a soak has found out, growing while it runs."""

    lives: list[Lived] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    unkept: list[str] = field(default_factory=list)
    published: int = 0
    samples: list[tuple[float, Held]] = field(default_factory=list)  # of the steady gateway, under traffic
    warm: Held | None = None
    end: Held | None = None


class Soak:
    """Carries a schedule out. `only`: the kinds of trials, all if empty."""

    def __init__(
        self, schedule: Schedule, make: Callable[[], Cloister], packages: Path, *, only: tuple[str, ...] = ()
    ) -> None:
        self.schedule, self.seen, self._only = schedule, Seen(), only
        self.worlds = [World(name=name, cloister=make()) for name in ("steady", "run", "kept")]
        base = self.worlds[0].cloister.base
        self._clients, self._seen_log = base / "clients", base / "seen.jsonl"
        shutil.copytree(packages, self._clients)
        shutil.copytree(Path(__file__).parent / "inside", self._clients / "inside")
        authority = Authority()
        ports = free_ports((*ORIGINS, places.DEAD))
        scratch = base / "origins"
        scratch.mkdir()
        orders = Orders(
            log=str(self._seen_log), scratch=str(scratch), authority=authority.stored(), ports=ports, canaries=CANARIES
        )  # fmt: skip
        self._origins = Origins(orders)
        self._begun = time.monotonic()
        for world in self.worlds:
            prepare(world.cloister, self._clients, authority, ports)

    def run(self) -> None:
        """All of it; what was promised and did not come is in `seen.unkept`."""
        steady, run, kept = self.worlds
        threads = [
            threading.Thread(target=self._guarded, args=(work, world))
            for work, world in ((self._steady, steady), (self._run, run), (self._kept, kept))
        ]
        try:
            for thread in threads:
                thread.start()
            for outage in self.schedule.outages:
                self._wait(outage.at_s)
                self._fail(outage)
            for thread in threads:
                thread.join()
        finally:
            self._origins.kill()

    def _guarded(self, work: Callable[[World], None], world: World) -> None:
        try:
            work(world)
        except Exception as error:  # a thread that ends unheard would look like nothing found
            self.seen.unkept.append(f"{world.name}: {type(error).__name__}: {error}")

    def _left_s(self) -> float:
        return self.schedule.seconds - (time.monotonic() - self._begun)

    def _wait(self, at_s: float) -> None:
        select.select([], [], [], max(0.0, self._begun + at_s - time.monotonic()))

    # Faults of the network.

    def _fail(self, outage: Outage) -> None:
        self.seen.faults[f"origins: {outage.kind}"] += 1
        began = time.time()
        match outage.kind:
            case "kill":
                self._origins.kill()
                select.select([], [], [], outage.lasts_s)
                self._origins.again()
                self.seen.outages.append((began, time.time() + _GRACE_S))
            case "stop":
                _pause(self._origins.pid, outage.lasts_s)
            case "hang":
                if self._steady_gateway is not None:
                    _pause(self._steady_gateway, outage.lasts_s)

    _steady_gateway: int | None = None

    # The sandbox that stays alive.

    def _steady(self, world: World) -> None:
        (port,) = free_ports(("published",)).values()
        lived = self._lived(
            "steady", world, Life(name="", lanes=self.schedule.steady_lanes, lasts_s=0.0, victim="none")
        )
        with self._traffic(world, lived, "run", "-p", f"{port}:{places.SERVED_PORT}") as clients:
            found = wait_parts(world.cloister, world.traces)
            lived.sandbox, self._steady_gateway = found.sandbox, found.gateway
            late_s = time.monotonic() - self._begun  # a busy machine takes its time to start it
            stop = threading.Event()
            caller = threading.Thread(target=self._call, args=(port, stop))
            caller.start()
            try:
                self._wait(late_s + self.schedule.warm_s)
                self.seen.warm = _measured(clients, found)
                clients.say("go")
                for step in range(_SAMPLES):
                    self.seen.samples.append((time.monotonic() - self._begun, held(found.gateway)))
                    left_s = self.schedule.seconds - self.schedule.warm_s
                    self._wait(late_s + self.schedule.warm_s + left_s * (step + 1) / _SAMPLES)
            finally:
                stop.set()
                caller.join()
            self.seen.end = _measured(clients, found)
            clients.say("end")
            if (code := clients.end(world.traces)) != 0:
                raise UnkeptPromiseError(f"the steady sandbox ended with {code}")
            wait_gone(found)

    def _call(self, port: int, stop: threading.Event) -> None:
        """Use the published port from outside, and sometimes break off."""
        rng = random.Random(f"{self.schedule.seed}/published")
        while not stop.wait(rng.uniform(0.02, 0.3)):
            sent = rng.randbytes(rng.randrange(1, 1 << 18))
            with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
                sock.sendall(sent)
                if rng.random() < 0.2:
                    continue
                sock.shutdown(socket.SHUT_WR)
                answer = bytearray()
                while part := sock.recv(1 << 16):
                    answer += part
            if bytes(answer) != sent[::-1]:
                self.seen.unkept.append(f"the published port answered {len(answer)} bytes of {len(sent)}")
            self.seen.published += 1

    # Those that are killed.

    def _run(self, world: World) -> None:
        for life in self.schedule.lives:
            if self._left_s() < life.lasts_s:
                break
            self._one_run(world, life, self._lived(life.name, world, life))
        self._last(world)

    def _last(self, world: World) -> None:
        """The next command cleans up after the last kill."""
        done = world.cloister.run("true")
        world.traces.output += [done.out, done.err]
        if done.code != 0:
            raise UnkeptPromiseError(f"the command after the last kill: {done}")

    def _one_run(self, world: World, life: Life, lived: Lived) -> None:
        if life.victim == "start":
            process = world.cloister.start(
                "run", "--", *command(world.cloister, self._clients, lived, self.schedule.seed, self._only)
            )
            select.select([], [], [], life.lasts_s)
            lived.killed_at = time.time()
            process.kill()
            out, err = process.communicate(timeout=DEADLINE_S)
            world.traces.output += [out, err]
            lived.sandbox = _recorded(world.cloister)
            return
        with self._traffic(world, lived, "run") as clients:
            found = wait_parts(world.cloister, world.traces)
            lived.sandbox = found.sandbox
            select.select([], [], [], life.lasts_s)
            if life.victim == "none":
                clients.rest()
                clients.say("end")
            else:
                lived.killed_at = time.time()
                registry.kill(found.processes[life.victim])
            clients.process.wait(DEADLINE_S)
            code = clients.end(world.traces)
            if code != _CODES[life.victim]:
                raise UnkeptPromiseError(f"{life}: exit code {code}: {world.traces.output[-1]}")
            wait_gone(found)

    def _kept(self, world: World) -> None:
        for life in self.schedule.kept:
            if self._left_s() < life.lasts_s:
                break
            done = world.cloister("up")
            world.traces.output += [done.out, done.err]
            if done.code != 0:
                raise UnkeptPromiseError(f"up, before {life}: {done}")
            self._one_exec(world, life, self._lived(life.name, world, life))
        done = world.cloister("stop")
        world.traces.output += [done.out, done.err]
        self._last(world)

    def _one_exec(self, world: World, life: Life, lived: Lived) -> None:
        found = wait_parts(world.cloister, world.traces)
        lived.sandbox = found.sandbox
        with self._traffic(world, lived, "exec") as clients:
            client = clients.process.pid
            guide = processes(children(client))
            inside = processes(child for one in guide for child in children(one.pid))
            select.select([], [], [], life.lasts_s)
            if life.victim == "none":
                clients.rest()
                clients.say("end")
            else:
                lived.killed_at = time.time()
                for one in {"client": processes([client]), "guide": guide}.get(life.victim) or [
                    found.processes[life.victim]
                ]:
                    registry.kill(one)
            clients.process.wait(DEADLINE_S)
            code = clients.end(world.traces)
            if (code == 0) != (life.victim == "none"):
                raise UnkeptPromiseError(f"{life}: exit code {code}: {world.traces.output[-1]}")
            until_dead([*guide, *inside], f"started by `exec`: {life}")
            if life.victim in ("session", "gateway", "bubblewrap", "init", "first"):
                wait_gone(found)

    # What they share.

    def _lived(self, name: str, world: World, life: Life) -> Lived:
        lived = Lived(name=name, world=world.name, victim=life.victim, lanes=life.lanes)
        self.seen.lives.append(lived)
        self.seen.faults[f"{world.name}: {life.victim}"] += 1
        return lived

    @contextmanager
    def _traffic(self, world: World, lived: Lived, *how: str) -> Iterator[Traffic]:
        argv = command(world.cloister, self._clients, lived, self.schedule.seed, self._only)
        with traffic(world.cloister, world.traces, *how, "--", *argv) as clients:
            clients.expect("ready")
            yield clients

    def story(self) -> Story:
        """What clients, origins and audit logs tell."""
        notes, audit = [], []
        for world in self.worlds:
            for path in sorted((world.cloister.project / "results").glob("*.jsonl")):
                notes += rows_of(path, whole=False)
            for path in sorted((world.cloister.state / "audit").glob("audit.jsonl*")):
                audit += rows_of(path) if path.suffix != ".lock" else []
        return Story(
            lives=self.seen.lives,
            notes=notes,
            seen=rows_of(self._seen_log),
            audit=audit,
            outages=self.seen.outages,
            published=self.seen.published,
        )


def _measured(clients: Traffic, found: Parts) -> Held:
    """What the gateway holds when no client is there and its number of descriptors stays the same."""
    clients.rest()
    last, since = -1, time.monotonic()

    def settled() -> bool:
        nonlocal last, since
        now = held(found.gateway).descriptors
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 1.0

    with suppress(UnkeptPromiseError):
        until(settled, "the gateway is at rest", deadline_s=20.0)
    return held(found.gateway)


def _pause(pid: int, lasts_s: float) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        select.select([], [], [], lasts_s)
        os.kill(pid, signal.SIGCONT)


def _recorded(cloister: Cloister) -> str:
    """The id of the sandbox that a killed start has left a record of."""
    with suppress(ValueError, OSError):
        return next((path.stem for path in (cloister.state / "runs").glob("*.json")), "")
    return ""
