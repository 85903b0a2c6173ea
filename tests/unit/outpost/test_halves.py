"""Both halves, with a session and a holder that the test plays, and no engine: the "container" is a child process."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloister.network import holder
from cloister.outpost import near
from cloister.outpost.orders import Orders
from cloister.policy.codec import policy_document
from cloister.system import proc
from cloister.types import Policy
from tests.unit.outpost.test_errands import asked_for

DEADLINE_S = 30.0
# What runs in the container, in directories of the test's.
CHILD = """
import sys
sys.path[:0] = {path!r}
from cloister.network import holder
from cloister.outpost import main
holder.DIRECTORY = main.DIRECTORY = {directory!r}
main.main()
"""


class Session:
    """Plays the session: starts the host's half in a thread, and hears what it says."""

    def __init__(self, base: Path, code: str | None = None) -> None:
        self.base = base
        for name in ("public", "inside"):
            (base / name).mkdir()
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE_S)
        self.bundle, pipe = os.pipe()
        inside = str(base / "inside")
        code = code or CHILD.format(path=[one for one in sys.path if one], directory=inside)
        policy = Policy(bans=(), grants=(), credentials=(asked_for("two", "env:TOKEN", confirm=True),))
        orders = Orders(
            sandbox_id="test-0123456789ab-abcdef",
            plan={"policy": policy_document(policy), "sandbox": {}, "hosts": {}, "bound": []},
            audit_path=str(base / "audit.jsonl"),
            untrusted=(),
            control_path=str(base / "public.sock"),
            public_directory=str(base / "public"),
            host_roots=None,
            upstream_ca=(),
            environ={"TOKEN": "t0ken"},
            engine={"PATH": proc.PATH},
            argv=(sys.executable, "-c", code),
            remove=(("/usr/bin/touch", str(base / "removed")),),
            bound=[],
        )
        self._theirs = theirs
        self.thread = threading.Thread(target=near.serve, args=(orders, theirs, pipe), daemon=True)
        self.thread.start()

    def hear(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.socket.recv(1 << 16))
        return found

    def read_bundle(self) -> bytes:
        with open(self.bundle, "rb") as file:
            return file.read()

    def plumb(self) -> tuple[socket.socket, socket.socket, tuple[str, int]]:
        """Play the holder: pass a listening socket on. Its connection, the namespace's end of a line, the address."""
        control = holder.call(str(self.base / "inside"))
        control.settimeout(DEADLINE_S)
        _, (orders,), _, _ = socket.recv_fds(control, 1 << 16, 1)
        os.close(orders)
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        entry = {"kind": "tcp", "family": 4, "address": "", "port": address[1]}
        socket.send_fds(
            control, [json.dumps({"op": "listen", "sockets": [entry]}).encode()], [listener.fileno()]
        )
        listener.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        namespace = os.open("/dev/null", os.O_RDONLY)  # nobody is in it: a gateway kills who is left there
        socket.send_fds(control, [b'{"op": "holder"}'], [namespace, theirs.fileno()])
        os.close(namespace)
        theirs.close()
        control.send(b'{"op": "plumbed"}')
        return control, ours, address

    def close(self) -> None:
        self.socket.close()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        self._theirs.close()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def start(code: str | None = None) -> Session:
        made.append(Session(tmp_path, code))
        return made[-1]

    yield start
    for one in made:
        one.close()


def events(base: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (base / "audit.jsonl").read_text().splitlines()]


def test_a_whole_life(session: Callable[..., Session], tmp_path: Path) -> None:
    """CA, sockets, a refusal whose line the host writes, a question from another command, and the end."""
    here = session()
    assert here.read_bundle().count(b"-----BEGIN CERTIFICATE-----") == 1
    assert (tmp_path / "public/ca.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")
    held, line, address = here.plumb()
    assert here.hear() == {"op": "ready"}
    here.socket.send(b'{"op": "ping"}')
    assert here.hear() == {"op": "pong"}
    with socket.create_connection(address, timeout=DEADLINE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b"403" in client.recv(100)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(DEADLINE_S)
        asking.connect(str(tmp_path / "public.sock"))
        asking.sendall(b'{"op": "credentials"}\n')
        (found,) = json.loads(asking.recv(1 << 16))["credentials"]
        assert found["name"] == "two"
    here.socket.send(b'{"op": "end"}')
    here.thread.join(DEADLINE_S)
    assert [event["event"] for event in events(tmp_path)] == ["refuse"]
    assert events(tmp_path)[0]["sandbox"] == "test-0123456789ab-abcdef"
    assert not (tmp_path / "public.sock").exists()
    assert not (tmp_path / "removed").exists()
    held.close()
    line.close()


def test_the_sessions_death_removes_the_sandbox(session: Callable[..., Session], tmp_path: Path) -> None:
    here = session()
    here.read_bundle()
    here.socket.close()
    here.thread.join(DEADLINE_S)
    assert (tmp_path / "removed").exists()


def test_the_holders_end_is_told(session: Callable[..., Session]) -> None:
    here = session()
    held, line, _ = here.plumb()
    assert here.hear() == {"op": "ready"}
    held.close()
    said = here.hear()
    assert (said["op"], "holds the sandbox's network ended" in str(said["text"])) == ("holder-ended", True)
    line.close()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; sys.exit('no such image: x')", "no such image: x"),
        ("print('what is this', flush=True)", "a frame of"),
        (
            "import os; os.write(1, b'\\0\\0\\0\\x11M' + b'{\"op\": \"listen\"}')",
            "the container said 'listen'",
        ),
        ("import os; os.write(1, b'\\0\\0\\0\\x05D\\0'); os.close(1)", "within a frame"),
    ],
)
def test_a_container_that_ends_or_says_what_it_must_not(
    session: Callable[..., Session], code: str, expected: str
) -> None:
    here = session(code)
    assert here.read_bundle() == b"", "nobody waits for a bundle that does not come"
    said = here.hear()
    assert (said["op"], expected in str(said["text"])) == ("failed", True), said


def test_a_client_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(proc, "converse", fail)
    here = Session(tmp_path)
    assert here.read_bundle() == b""
    assert "cannot be started: No such file" in str(here.hear()["text"])
    here.close()
