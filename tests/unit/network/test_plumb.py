"""The plumber in a real namespace, and the helper that comes back to it."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cloister.network import enter, plumb, standin

pytestmark = pytest.mark.sandbox


@dataclass(frozen=True, kw_only=True)
class Plumbed:
    """A namespace held by a child process that runs scripts in it."""

    messages: list[dict[str, object]]
    sockets: list[tuple[dict[str, object], socket.socket]]
    user_namespace: int
    network_namespace: int
    call: Callable[[str], str]


@pytest.fixture
def plumbed() -> Iterator[Plumbed]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    commands, answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            commands.close()
            plumb.enter_fresh_namespaces(os.geteuid(), os.getegid())
            plumb.plumb([(7, [5432, 6432])], theirs)
            theirs.close()
            while source := answers.recv(65536):
                scope: dict[str, object] = {}
                try:
                    exec(source.decode(), scope)
                    answers.send(str(scope["result"]).encode())
                except BaseException as error:
                    answers.send(f"{type(error).__name__} {getattr(error, 'errno', '')}".encode())
        finally:
            os._exit(0)
    theirs.close()
    answers.close()
    ours.settimeout(20)
    commands.settimeout(20)
    messages: list[dict[str, object]] = []
    sockets: list[tuple[dict[str, object], socket.socket]] = []
    namespaces: list[int] = []
    while not messages or messages[-1]["op"] != "plumbed":
        data, descriptors, _, _ = socket.recv_fds(ours, 65536, 253)
        assert data, "the plumber died"
        message = json.loads(data)
        messages.append(message)
        if message["op"] == "listen":
            sockets += zip(
                message["sockets"], (socket.socket(fileno=one) for one in descriptors), strict=True
            )
        elif message["op"] == "namespace":
            namespaces = list(descriptors)

    def call(source: str) -> str:
        commands.send(source.encode())
        return commands.recv(65536).decode()

    yield Plumbed(
        messages=messages, sockets=sockets, user_namespace=namespaces[0], network_namespace=namespaces[1], call=call
    )  # fmt: skip
    commands.close()
    ours.close()
    os.waitpid(child, 0)
    for _, one in sockets:
        one.close()
    for descriptor in namespaces:
        os.close(descriptor)


def accepted(plumbed: Plumbed, address: str, port: int, dialled: tuple[str, int]) -> socket.socket:
    """Connect from inside to `dialled`; the socket that the listener bound to (address, port) accepts outside."""
    family = "AF_INET6" if ":" in dialled[0] else "AF_INET"
    result = plumbed.call(
        f"import socket; s = socket.socket(socket.{family}); s.connect({dialled!r}); s.sendall(b'inside'); result = 'ok'"
    )
    assert result == "ok"
    listening = next(
        one for what, one in plumbed.sockets if (what["address"], what["port"]) == (address, port)
    )
    assert select.select([listening], [], [], 10)[0]
    connection, _ = listening.accept()
    return connection


@pytest.mark.parametrize(
    ("dialled", "wildcard"),
    [(("140.82.1.2", 443), "0.0.0.0"), (("127.0.0.1", 80), "0.0.0.0"), (("198.18.0.9", 443), "0.0.0.0"), (("2606:4700::1", 443), "::")],
)  # fmt: skip
def test_every_address_leads_to_the_gateway(
    plumbed: Plumbed, dialled: tuple[str, int], wildcard: str
) -> None:
    """AnyIP: the gateway's socket, held outside the namespace, knows the address that was dialled."""
    if ":" in wildcard and all(what["family"] == 4 for what, _ in plumbed.sockets):
        pytest.skip("this kernel has no IPv6")
    with accepted(plumbed, wildcard, dialled[1], dialled) as connection:
        assert connection.getsockname()[:2] == dialled
        connection.setblocking(True)
        assert connection.recv(10) == b"inside"


def test_named_ports_are_bound_on_stand_ins_only(plumbed: Plumbed) -> None:
    with accepted(plumbed, standin.v4(7), 5432, (standin.v4(7), 5432)):
        pass
    for address in ("127.0.0.1", standin.v4(8), "140.82.1.2"):
        assert plumbed.call(f"import socket; socket.create_connection(({address!r}, 5432), 5)") == (
            f"ConnectionRefusedError {errno.ECONNREFUSED}"
        )
    assert (
        plumbed.call(
            "import socket; s = socket.create_server(('127.0.0.1', 5432)); result = s.getsockname()[1]"
        )
        == "5432"
    )


def test_nothing_but_loopback(plumbed: Plumbed) -> None:
    assert plumbed.call("import socket; result = [name for _, name in socket.if_nameindex()]") == "['lo']"


def test_ports_cannot_be_shared(plumbed: Plumbed) -> None:
    """Neither SO_REUSEADDR nor SO_REUSEPORT lets a program of the sandbox listen beside the gateway."""
    for option in ("SO_REUSEADDR", "SO_REUSEPORT"):
        for address, port in (
            ("0.0.0.0", 443),
            ("140.82.1.2", 443),
            ("127.0.0.1", 3128),
            (standin.v4(7), 5432),
        ):
            source = (
                f"import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.{option}, 1);"
                f" s.bind(({address!r}, {port})); s.listen(); result = 'BREACHED'"
            )
            assert plumbed.call(source) == f"OSError {errno.EADDRINUSE}"


def test_datagrams_tell_which_address_was_asked(plumbed: Plumbed) -> None:
    plumbed.call(
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'q', ('9.9.9.9', 53)); result = 1"
    )
    listening = next(
        one for what, one in plumbed.sockets if what["kind"] == "dns-udp" and what["family"] == 4
    )
    assert select.select([listening], [], [], 10)[0]
    data, ancillary, _, _ = listening.recvmsg(512, 128)
    assert data == b"q"
    ((_, _, info),) = ancillary
    assert socket.inet_ntoa(struct.unpack("=I4s4s", info[:12])[2]) == "9.9.9.9"


def test_sockets_bound_later(plumbed: Plumbed) -> None:
    start = time.monotonic()
    wanted = [(standin.v4(40), 8443), (standin.v6(40), 8443)]
    if all(what["family"] == 4 for what, _ in plumbed.sockets):
        wanted.pop()
    bound = enter.bind_later(plumbed.user_namespace, plumbed.network_namespace, wanted)
    assert [one.getsockname()[:2] for one in bound] == wanted
    assert time.monotonic() - start < enter.TIMEOUT_S
    assert (
        plumbed.call(f"import socket; socket.create_connection(({wanted[0][0]!r}, 8443), 5); result = 'ok'")
        == "ok"
    )
    with pytest.raises(OSError, match="in use"):
        enter.bind_later(plumbed.user_namespace, plumbed.network_namespace, wanted)
    for one in bound:
        one.close()


def test_many_ports_are_sent_in_several_packets() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            plumb.enter_fresh_namespaces(os.geteuid(), os.getegid())
            plumb.plumb([(index, [9000, 9001]) for index in range(2, 102)], theirs)
        finally:
            os._exit(0)
    theirs.close()
    ours.settimeout(20)
    count = 0
    while True:
        data, descriptors, _, _ = socket.recv_fds(ours, 65536, 253)
        message = json.loads(data)
        if message["op"] == "plumbed":
            break
        count += len(message.get("sockets", ()))
        for one in descriptors:
            os.close(one)
    os.waitpid(child, 0)
    ours.close()
    assert count in (200 + 5, 400 + 10)
