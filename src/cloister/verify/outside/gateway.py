"""The gateway hangs, or is killed: nothing leaves (NET-8)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from cloister.runtimes import oci_exec_argv
from cloister.sandbox import registry
from cloister.system import proc
from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside import beside as origins
from cloister.verify.outside.beside import NAME, Beside
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import World
from cloister.verify.witnesses import wait_for

_HUNG_S = 2.0  # how long an attempt waits while the gateway hangs
_END_S = 30.0
_ENGINE_S = 30.0
# Ask again and again, with a number, until the sandbox ends: at the address that the name had, by the name, and at the
# origin's own address and port.
_LOOP = """
import http.client, socket, sys, time
name, known = sys.argv[1], socket.gethostbyname(sys.argv[1])
end, number = time.monotonic() + 40, 0
while time.monotonic() < end:
    for host, port in ((known, 80), (name, 80), ("127.0.0.1", int(sys.argv[2]))):
        number += 1
        try:
            connection = http.client.HTTPConnection(host, port, timeout=1)
            connection.request("GET", f"/loop-{number}", headers={"Host": name})
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
"""
_RESOLVE = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
_DIRECTLY = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as stream:
    stream.sendall(b"GET /attack-NET-8-directly HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
"""
_DATAGRAM = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(1)
sock.sendto(b"\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0\\7example\\3com\\0\\0\\x01\\0\\x01", (sys.argv[1], 53))
answer = sock.recv(512)
sys.exit(f"code {answer[3] & 15}" if answer[3] & 15 or answer[6:8] == bytes(2) else 0)
"""


def hung_or_killed(found: Probe, world: World) -> None:
    with origins.made() as beside:
        origins.write(world, origins.configured(world, beside))
        project = world.project("gateway")
        up = world.cloister("up", "-C", project.workspace)
        record = next(iter(registry.records(project.runs)), None)
        found.control(
            "a sandbox runs, and its gateway is known", succeeded, bool(record and record.others), up.said
        )
        if record is None or not record.others:
            return
        if record.container is not None and record.container.gateway:
            found.note("the gateway's own container was not stopped: what was, is its half on this host")
        try:
            _hung(found, world, project.workspace, beside, record)
            _killed(found, world, project.workspace, beside, record)
        finally:
            world.cloister("stop", "-C", project.workspace)


def _hung(found: Probe, world: World, workspace: str, beside: Beside, record: registry.Record) -> None:
    def tried(*command: str) -> str:
        done = world.cloister("exec", "-C", workspace, "--", *command)
        if done.code:
            raise RefusedError(done.said)
        return "it did not fail"

    found.control("a granted name is reached", tried, *origins.asking(NAME, "/control-NET-8"))
    resolved = world.cloister("exec", "-C", workspace, "--", "python3", "-I", "-c", _RESOLVE, NAME)
    known = resolved.out.strip()
    found.control("it has an address", succeeded, resolved.code == 0, known or resolved.said)
    with _suspended(record):
        found.attack("a granted name, while it hangs", tried, *origins.asking(NAME, "/attack-NET-8", _HUNG_S))
        at_address = origins.asking(NAME, "/attack-NET-8-address", _HUNG_S, known)
        found.attack("the address that the name had, while it hangs", tried, *at_address)
        for address in ("127.0.0.1", "203.0.113.9"):
            directly = ("python3", "-I", "-c", _DIRECTLY, address, str(beside.port))
            found.attack(f"the origin's port at {address}, while it hangs", tried, *directly)
        question = ("python3", "-I", "-c", _DATAGRAM, "203.0.113.9")
        found.attack("a question to a resolver outside, while it hangs", tried, *question)
        found.attack("something arrived while it hung", _arrived, beside.seen())
    found.control("it answers when it goes on", tried, *origins.asking(NAME, "/control-NET-8-again", 20.0))


def _arrived(seen: bytes) -> str:
    if (mark := re.search(rb"attack-NET-8\S*", seen)) is None:
        raise RefusedError("nothing did")
    return mark[0].decode()


@contextmanager
def _suspended(record: registry.Record) -> Iterator[None]:
    """The gateway hangs: its process, or the container that it runs in."""
    container, process = record.container, record.others[0]
    if container is not None and container.gateway:
        name = oci_exec_argv.Names(sandbox=record.sandbox_id, project="").gateway
        environment = dict(container.environment)
        proc.run([container.program, "pause", name], environment=environment, timeout_s=_ENGINE_S)
        try:
            yield
        finally:
            proc.run([container.program, "unpause", name], environment=environment, timeout_s=_ENGINE_S)
        return
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def _killed(found: Probe, world: World, workspace: str, beside: Beside, record: registry.Record) -> None:
    """Kill it while a process of the sandbox asks again and again."""
    asker = os.fork()
    if asker == 0:
        command = ("python3", "-I", "-c", _LOOP, NAME, str(beside.port))
        done = world.cloister("exec", "-C", workspace, "--", *command)
        os._exit(0 if done.code == 0 else 1)
    gateway, init = record.others[0], record.init
    found.control(
        "who asks again and again is answered", succeeded, beside.waited(b"/loop-1 ", _END_S), "it was"
    )
    registry.kill(gateway)
    found.control(
        "the gateway can be killed", succeeded, wait_for(lambda: not registry.alive(gateway), _END_S), ""
    )
    before = _numbers(beside)
    ended = init is None or wait_for(lambda: not registry.alive(init), _END_S)
    ended = os.waitstatus_to_exitcode(os.waitpid(asker, 0)[1]) != 0 and ended
    found.attack("the sandbox lives on without it", _lives_on, not ended)
    found.attack("its requests go on without it", _go_on, len(_numbers(beside) - before))


def _numbers(beside: Beside) -> set[bytes]:
    return set(re.findall(rb"/loop-(\d+) ", beside.seen()))


def _lives_on(it_does: bool) -> str:
    if not it_does:
        raise RefusedError("it ended")
    return "it does"


def _go_on(count: int) -> str:
    """One may have been on its way to the origin when the gateway was killed."""
    if count <= 1:
        raise RefusedError(f"{count} arrived, which had left before")
    return f"{count} arrived"
