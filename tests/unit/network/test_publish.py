"""Listening on this machine's loopback for published ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.errors import HostError
from cloister.network import listeners, publish
from cloister.policy.published import PublishedPort

HAS_V6 = os.path.exists("/proc/self/net/if_inet6") and "00000000000000000000000000000001" in (
    Path("/proc/self/net/if_inet6").read_text()
)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free() -> int:
    """A port that is free on both loopbacks, as far as one can know."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


def test_both_loopbacks_and_nothing_else() -> None:
    number = free()
    (bound,) = publish.bind([PublishedPort(host=number, sandbox=3000)])
    addresses = [sock.getsockname()[:2] for sock in bound.sockets]
    assert addresses == [("127.0.0.1", number), *([("::1", number)] if HAS_V6 else [])]
    for address in addresses:
        socket.create_connection(address, 5).close()
    for sock in bound.sockets:
        assert not os.get_inheritable(sock.fileno())
    bound.close()
    publish.check([PublishedPort(host=number, sandbox=3000)])  # free again, TIME_WAIT or not


def test_a_port_in_use_is_told_with_who_uses_it(taken: int) -> None:
    with pytest.raises(HostError) as caught:
        publish.bind([PublishedPort(host=taken, sandbox=3000)])
    name = Path("/proc/self/comm").read_text().strip()
    assert caught.value.brief == (
        f"port {taken} of this machine is in use by {name!r} (pid {os.getpid()}), and port 3000 of the sandbox is to be "
        "published there"
    )
    assert caught.value.resolution == (
        f"stop that, or publish it elsewhere: -p {taken + 1}:3000, or the same in [sandbox] ports"
    )


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::1"])
def test_a_listener_on_any_address_is_in_the_way(address: str) -> None:
    if ":" in address and not HAS_V6:
        pytest.skip("no IPv6 here")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        number = server.getsockname()[1]
        with pytest.raises(HostError, match="in use"):
            publish.bind([PublishedPort(host=number, sandbox=3000)])
    with socket.create_server(("127.0.0.1", number)):  # nothing of ours stayed on the other loopback
        pass


def test_all_or_nothing(taken: int) -> None:
    number = free()
    with pytest.raises(HostError, match="in use"):
        publish.bind([PublishedPort(host=number, sandbox=1), PublishedPort(host=taken, sandbox=2)])
    publish.check([PublishedPort(host=number, sandbox=1)])


def test_auto_takes_the_next_free_port_and_never_one_that_is_named(taken: int) -> None:
    ports = [
        PublishedPort(host=taken, sandbox=taken, auto=True),
        PublishedPort(host=taken + 1, sandbox=3000),
    ]
    try:
        named, auto = publish.bind(ports)
    except HostError:
        pytest.skip("the next port is taken by chance")
    assert named.port == PublishedPort(host=taken + 1, sandbox=3000)
    assert auto.port.host > taken + 1
    assert auto.port.sandbox == taken
    named.close()
    auto.close()


def test_no_free_port_is_told(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(publish, "_AUTO_TRIES", 1)
    with pytest.raises(HostError) as caught:
        publish.bind([PublishedPort(host=taken, sandbox=3000, auto=True)])
    assert caught.value.brief.startswith(f"no port of this machine from {taken} to {taken} is free")
    assert caught.value.resolution == "name one that is free: -p FREE:3000"


def test_a_port_of_roots_is_told_to_an_ordinary_user() -> None:
    script = (
        "import os, sys; os.getuid() or os.setuid(65534)\n"
        "from cloister.network import publish; from cloister.policy.published import PublishedPort\n"
        "try: publish.check([PublishedPort(host=81, sandbox=3000)])\n"
        "except Exception as error: print(error)"
    )
    start = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if start <= 81:
        pytest.skip("anybody may listen there")
    source = os.path.dirname(os.path.dirname(os.path.dirname(publish.__file__)))
    if not os.access(source, os.X_OK) or _hidden_from_others(source):
        pytest.skip("the checkout is not readable by others")
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": source}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == (
        "you may not listen on port 81 of this machine, and port 3000 of the sandbox is to be published there"
    )
    assert "-p 8081:3000" in done.stdout


def _hidden_from_others(path: str) -> bool:
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return True
        path = os.path.dirname(path)
    return False


def test_listening_sockets_are_read_from_the_kernels_table() -> None:
    table = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0\n"
        "   1: 0100007F:0BB8 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 20 4\n"
        "   2: 00000000:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0\n"
        "   3: 00000000000000000000000000000000:0BB8 0000:0000 0A 0:0 00:0 0     0        0 444 1 0 100 0\n"
        "torn"
    )
    assert listeners.listening_inodes(table, 3000) == {111, 444}
    assert listeners.listening_inodes("", 3000) == frozenset()
