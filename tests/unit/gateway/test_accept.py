"""Limits of the acceptor, and handlers that fail."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from cloister.gateway import accept, judge
from cloister.gateway.services import Deadlines
from tests.fakes.origin import Origin
from tests.unit.gateway.harness import Harness, plan, read_all, rule

NAME = "db.example.com"


def _plan(origin: Origin) -> dict[str, object]:
    compiled = plan(rule(NAME, ports=(5432,), transport="tcp"), hosts={NAME: ("127.0.0.1", origin.port)})
    compiled["bound"] = [{"host": NAME, "ports": [5432]}]
    return compiled


def _echoes(sock: socket.socket) -> bool:
    sock.sendall(b"x")
    return sock.recv(1) == b"x"


def test_at_the_limit_it_waits_and_says_so_once(tmp_path: Path) -> None:
    origin = Origin()
    with Harness(_plan(origin), directory=tmp_path, connections_limit=3) as sandbox:
        open_ones = [sandbox.dial_name(NAME, 5432) for _ in range(3)]
        assert all(map(_echoes, open_ones))
        waiting = sandbox.dial_name(NAME, 5432)
        waiting.sendall(b"y")
        alarm = sandbox.log.wait(lambda event: event.kind == "alarm")
        assert "3 connections are open" in (alarm.text or "")
        assert len(origin.seen) == 3
        open_ones[0].close()
        assert waiting.recv(1) == b"y"  # there is room again
        for sock in open_ones[1:]:
            sock.close()
        assert _echoes(sandbox.dial_name(NAME, 5432))
        assert len([event for event in sandbox.log.events if event.kind == "alarm"]) == 1
    origin.close()


def test_out_of_descriptors_it_neither_spins_nor_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "_RETRY_S", 0.05)
    tries = 0
    real = socket.socket.accept

    def fail_three_times(self: socket.socket) -> object:
        nonlocal tries
        if tries < 3 and self.getsockname()[1] in sandbox.gateway.dialled:
            tries += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self)

    origin = Origin()
    with Harness(_plan(origin), directory=tmp_path) as sandbox:
        monkeypatch.setattr(socket.socket, "accept", fail_three_times)
        assert _echoes(sandbox.dial_name(NAME, 5432))
        assert tries == 3
        assert "EMFILE" in (sandbox.log.wait(lambda event: event.kind == "alarm").text or "")
    origin.close()


def test_a_handler_that_fails_ends_its_connection_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Origin()
    with Harness(_plan(origin), directory=tmp_path) as sandbox:
        with monkeypatch.context() as broken:

            def fail(*_: object) -> None:
                raise ZeroDivisionError

            broken.setattr(judge, "raw", fail)
            assert read_all(sandbox.dial_name(NAME, 5432)) == b""
        event = sandbox.log.wait(lambda event: event.kind == "alarm")
        assert event.reason == "internal error: ZeroDivisionError"
        assert _echoes(sandbox.dial_name(NAME, 5432))
        sandbox.log.events.clear()
    origin.close()


def test_heads_without_an_end_wait_for_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AV-1: what is still read costs memory of the gateway; tunnels that are open already go on."""
    monkeypatch.setattr(accept, "HANDLERS_LIMIT", 4)
    origin = Origin()
    compiled = plan(
        rule(NAME, ports=(5432,), transport="tcp"),
        rule("web.example.com"),
        hosts={NAME: ("127.0.0.1", origin.port)},
    )
    compiled["bound"] = [{"host": NAME, "ports": [5432]}]
    with Harness(compiled, directory=tmp_path, deadlines=Deadlines(head_s=1.0)) as sandbox:
        tunnels = [sandbox.dial_name(NAME, 5432) for _ in range(8)]
        assert all(map(_echoes, tunnels))
        for _ in range(12):
            sandbox.dial_name("web.example.com", 80).sendall(b"GET / HTTP/1.1\r\nX: ")
        alarm = sandbox.log.wait(lambda event: event.kind == "alarm")
        assert "4 connections wait" in (alarm.text or "")
        assert all(map(_echoes, tunnels))
        assert _echoes(sandbox.dial_name(NAME, 5432))  # the deadline of the heads makes room
    origin.close()
