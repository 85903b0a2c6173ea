"""Sockets for names under patterns: bound once, before DNS answers."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from cloister.network import standin
from tests.fakes.origin import Origin
from tests.unit.gateway.harness import Harness, plan, question, rule

PATTERN = rule("wild.example.com", reach="subdomains", ports=(443, 5432), transport="tcp")
ADDRESS = standin.v4(standin.FIRST_INDEX)


class FakeNamespace:
    """Binds on loopback what is wanted in the sandbox, and remembers it."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self.wanted: list[list[tuple[str, int]]] = []
        self.listeners: list[tuple[str, int]] = []
        self.failure: OSError | None = None

    def bind(self, wanted: list[tuple[str, int]]) -> list[socket.socket]:
        self.wanted.append(wanted)
        if self.failure:
            raise self.failure
        sockets = []
        for address, port in wanted:
            listener = socket.create_server(("127.0.0.1", 0))
            self.listeners.append(listener.getsockname())
            self._harness.gateway.dialled[listener.getsockname()[1]] = (address, port)
            sockets.append(listener)
        return sockets


def _fake(sandbox: Harness) -> FakeNamespace:
    namespace = FakeNamespace(sandbox)

    def use() -> None:
        sandbox.gateway.binder.bind_in_namespace = namespace.bind

    sandbox.call(use)
    return namespace


def test_a_port_of_a_pattern_is_bound_before_the_answer(tmp_path: Path) -> None:
    origin = Origin()
    compiled = plan(PATTERN, hosts={"db.wild.example.com": ("127.0.0.1", origin.port)})
    with Harness(compiled, directory=tmp_path) as sandbox:
        namespace = _fake(sandbox)
        assert sandbox.resolve("db.wild.example.com") == ADDRESS
        assert namespace.wanted == [[(ADDRESS, 5432)]]
        sock = socket.create_connection(namespace.listeners[0], timeout=10)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        sock.close()
    origin.close()


def test_many_questions_bind_once(tmp_path: Path) -> None:
    with Harness(plan(PATTERN), directory=tmp_path) as sandbox:
        namespace = _fake(sandbox)
        sandbox.listen("dns-udp")
        threads = [threading.Thread(target=sandbox.resolve, args=("a.wild.example.com",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        sandbox.resolve("a.wild.example.com")
        assert len(namespace.wanted) == 1


def test_a_failure_is_servfail_and_tried_again(tmp_path: Path) -> None:
    with Harness(plan(PATTERN), directory=tmp_path) as sandbox:
        namespace = _fake(sandbox)
        namespace.failure = OSError(98, "Address already in use")
        assert sandbox.ask(question("a.wild.example.com"))[3] & 15 == 2
        assert "Address already in use" in (sandbox.log.refusal().reason or "")
        namespace.failure = None
        assert sandbox.resolve("a.wild.example.com") == ADDRESS


def test_dns_over_tcp(tmp_path: Path) -> None:
    with Harness(plan(rule("ok.example.com")), directory=tmp_path) as sandbox:
        sock = sandbox.dns_tcp()
        for name, code in (("ok.example.com", 0), ("evil.example.com", 3)):
            message = question(name)
            for byte in len(message).to_bytes(2, "big") + message:  # byte by byte
                sock.send(bytes([byte]))
            size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
            answer = sock.recv(size, socket.MSG_WAITALL)
            assert answer[3] & 15 == code
        sock.sendall(b"\xff\xff")
        assert sock.recv(1) == b""


def test_names_without_end_take_a_bounded_number_of_sockets(tmp_path: Path) -> None:
    with Harness(plan(PATTERN), directory=tmp_path) as sandbox:
        namespace = _fake(sandbox)
        sandbox.call(lambda: setattr(sandbox.gateway.binder, "_sockets_left", 3))
        codes = [sandbox.ask(question(f"n{number}.wild.example.com"))[3] & 15 for number in range(5)]
        assert codes == [0, 0, 0, 2, 2]
        assert len(namespace.listeners) == 3
        assert sandbox.resolve("n1.wild.example.com")  # known names go on
        assert "too many names" in (sandbox.log.refusal().reason or "")
