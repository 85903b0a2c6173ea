"""Published ports in every runtime: reached on this machine's loopback, told by `ls`, and no way out for what is inside."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.contract.conftest import World
from tests.world import DEADLINE_S

# Answers each connection with what it said, turned round. Debian's minimal system has Perl, and nothing else.
SERVER = (
    "use IO::Socket; $|=1; $s=IO::Socket::INET->new(LocalAddr=>$ARGV[0],LocalPort=>3000,Listen=>5,ReuseAddr=>1) or die $!; "
    "print qq(serving\\n); while($c=$s->accept){local $/; $l=<$c>; print $c scalar reverse $l; close $c}"
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


def turned(port: int, text: bytes, address: str = "127.0.0.1") -> bytes:
    """What comes back; nothing if nobody serves."""
    try:
        with socket.create_connection((address, port), 20) as client:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            answer = bytearray()
            while part := client.recv(1 << 16):
                answer += part
    except OSError:
        return b""
    return bytes(answer)


def published(world: World) -> list[tuple[int, int, bool]]:
    (found,) = json.loads(world.cloister("ls", "--json").out)
    return [(one["host"], one["sandbox"], one["up"]) for one in found["ports"]]


@contextmanager
def serving(world: World, address: str = "127.0.0.1") -> Iterator[subprocess.Popen[str]]:
    process = world.cloister.start("exec", "--", "/usr/bin/perl", "-e", SERVER, address)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n", process.communicate(timeout=10)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def test_a_published_port_is_reached_as_long_as_a_server_listens(world: World) -> None:
    here = free_port()
    done = world.cloister("up", "-p", f"{here}:3000", timeout_s=120)
    assert done.code == 0, done
    assert turned(here, b"abc") == b"", "nobody serves yet"
    assert published(world) == [(here, 3000, False)]
    with serving(world):
        assert turned(here, b"abc") == b"cba"
        assert turned(here, b"x" * (1 << 20) + b"y", "::1")[:2] == b"yx"
        assert published(world) == [(here, 3000, True)]
        assert f"{here}→3000 (up)" in world.cloister("ls").out
    with serving(world, "0.0.0.0"):
        assert turned(here, b"abc") == b"cba"
    assert world.cloister("stop").code == 0
    assert turned(here, b"abc") == b""
    with socket.create_server(("127.0.0.1", here)):
        pass  # nothing of ours holds it


def test_it_is_on_no_other_address_of_this_machine(world: World) -> None:
    here = free_port()
    assert world.cloister("up", "-p", f"{here}:3000", timeout_s=120).code == 0
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    with serving(world, "0.0.0.0"):
        assert turned(here, b"abc") == b"cba"
        assert [turned(here, b"abc", address) for address in addresses] == [b""] * len(addresses)


def test_a_port_in_use_is_told_before_anything_starts(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        here = taken.getsockname()[1]
        done = world.cloister("up", "-p", f"{here}:3000", timeout_s=120)
    assert done.code == 125
    assert f"port {here} of this machine is in use" in done.err
    assert f"-p {here + 1}:3000" in done.err
    assert world.containers() == []
