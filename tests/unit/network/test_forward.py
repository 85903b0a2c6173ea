"""The connector: sockets of another network namespace, and nothing else of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cloister.network import forward
from cloister.system import proc
from tests.unit.network.test_plumb import Plumbed, plumbed

__all__ = ["plumbed"]

pytestmark = pytest.mark.sandbox


def made(peer: socket.socket, wanted: bytes = b"4") -> socket.socket:
    peer.send(wanted)
    data, descriptors, _, _ = socket.recv_fds(peer, 16, 2)
    assert data == forward.OK
    (descriptor,) = descriptors
    sock = socket.socket(fileno=descriptor)
    sock.setblocking(True)
    sock.settimeout(10)
    return sock


@pytest.mark.parametrize(("wanted", "address"), [(b"4", "127.0.0.1"), (b"6", "::1")])
def test_a_socket_connects_within_the_sandboxs_namespace(
    plumbed: Plumbed, wanted: bytes, address: str
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    port = int(
        plumbed.call(
            f"import socket, builtins; builtins.s = socket.create_server(({address!r}, 0), family={int(family)});"
            " result = s.getsockname()[1]"
        )
    )
    peer, child = forward.start(plumbed.user_namespace, plumbed.network_namespace)
    peer.settimeout(20)
    with peer, made(peer, wanted) as sock:
        sock.connect((address, port))
        assert (
            plumbed.call("import builtins; builtins.c = s.accept()[0]; c.sendall(b'inside'); result = 1")
            == "1"
        )
        assert sock.recv(10) == b"inside"
        with pytest.raises(OSError):
            socket.create_connection(
                (address, port), 5
            ).close()  # there is no such server in our own namespace
    assert proc.reap(child, timeout_s=10) == 0, "it ends with its peer"


def test_it_has_no_capability_and_is_in_the_sandboxs_namespaces_alone(plumbed: Plumbed) -> None:
    peer, child = forward.start(plumbed.user_namespace, plumbed.network_namespace)
    peer.settimeout(20)
    with peer:
        made(peer).close()
        status = Path(f"/proc/{child.pid}/status").read_text()
        for name in ("CapInh", "CapPrm", "CapEff"):
            assert f"{name}:\t0000000000000000\n" in status
        assert "NoNewPrivs:\t1\n" in status
        assert os.stat(f"/proc/{child.pid}/ns/net").st_ino == os.fstat(plumbed.network_namespace).st_ino
        assert os.stat(f"/proc/{child.pid}/ns/user").st_ino == os.fstat(plumbed.user_namespace).st_ino
        descriptors = {os.readlink(f"/proc/{child.pid}/fd/{n}") for n in os.listdir(f"/proc/{child.pid}/fd")}
        assert all(one == "/dev/null" or one.startswith("socket:") for one in descriptors)
    assert proc.reap(child, timeout_s=10) == 0


def test_words_that_it_does_not_know_are_refused() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        forward.serve(theirs)
        os._exit(7)
    theirs.close()
    ours.settimeout(10)
    with ours:
        for word in (b"x", b"44", b"connect 1.2.3.4"):
            ours.send(word)
            assert ours.recv(16) == b"22"
        made(ours).close()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
