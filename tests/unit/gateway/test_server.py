"""The real entry point in a process of its own: the CA comes first, then ready, then an end in time."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.session import gateway_process
from cloister.session.early_fork import fork_gateway
from tests.unit.gateway.harness import DEADLINE_S, plan, read_all, rule


class Process:
    """A forked gateway, as the session starts it."""

    def __init__(
        self, compiled: dict[str, object], directory: Path, *, host_roots: str | None = None
    ) -> None:
        self.pid, control, bundle = fork_gateway()
        gateway = gateway_process.Gateway(self.pid, control, bundle)
        gateway.begin(
            sandbox_id="s1",
            plan=compiled,
            audit_path=str(directory / "audit.jsonl"),
            public_directory=str(directory),
            host_roots=host_roots,
            untrusted=[],
        )
        self.control = gateway.control
        self.control.settimeout(DEADLINE_S)
        self._code: int | None = None
        with os.fdopen(bundle, "rb") as pipe:
            self.bundle = pipe.read()
        os.close(gateway.pidfd)

    def listen(self, kind: str) -> tuple[str, int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            entry = {"kind": kind, "family": 4, "address": "0.0.0.0", "port": 443}
            message = json.dumps({"op": "listen", "sockets": [entry]}).encode()
            socket.send_fds(self.control, [message], [listener.fileno()])
            address, port = listener.getsockname()
            return str(address), int(port)

    def plumbed(self) -> object:
        self.control.send(b'{"op": "plumbed"}')
        return json.loads(self.control.recv(65536))

    def end(self) -> int:
        """Close the control socket; the exit code."""
        self.control.close()
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Process]:
    process = Process(plan(rule("h.example.com")), tmp_path)
    yield process
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.end()
    except ProcessLookupError:
        pass


def test_start_serve_end(gateway: Process, tmp_path: Path) -> None:
    assert gateway.bundle == (tmp_path / "ca.pem").read_bytes()
    address = gateway.listen("tcp")
    assert gateway.plumbed() == {"op": "ready"}
    context = ssl.create_default_context(cadata=gateway.bundle.decode())
    sock = socket.create_connection(address, timeout=DEADLINE_S)
    with context.wrap_socket(sock, server_hostname="h.example.com") as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: h.example.com\r\n\r\n")
        assert b"dialled by address (127.0.0.1)" in read_all(tls)
    idle = socket.create_connection(address, timeout=DEADLINE_S)
    started = time.monotonic()
    assert gateway.end() == 0
    assert time.monotonic() - started < 1
    assert read_all(idle) == b""
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["sandbox"], line["port"]) for line in lines] == [
        ("refuse", "s1", address[1])
    ]


def test_a_broken_policy_is_told_and_ends_it(tmp_path: Path) -> None:
    process = Process({"policy": {"grants": []}}, tmp_path)
    failure = process.plumbed()
    assert isinstance(failure, dict)
    assert failure["op"] == "failed"
    assert "BrokenPolicyError" in failure["text"]
    assert process.end() == 1


def test_missing_roots_are_told_and_the_pipe_ends(tmp_path: Path) -> None:
    process = Process(plan(), tmp_path, host_roots="/nonexistent/roots.pem")
    assert process.bundle == b""
    assert "/nonexistent/roots.pem" in json.loads(process.control.recv(65536))["text"]
    assert process.end() == 1


def test_java_gets_its_truststore(tmp_path: Path) -> None:
    process = Process(plan() | {"sandbox": {"java": True}}, tmp_path)
    assert process.plumbed() == {"op": "ready"}
    deadline = time.monotonic() + DEADLINE_S
    while not (tmp_path / "truststore.p12").exists() and time.monotonic() < deadline:
        os.sched_yield()
    assert process.end() == 0
