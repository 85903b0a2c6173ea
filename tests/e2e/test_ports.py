"""Published ports of real sandboxes: reached from outside, and no way out for what is inside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.test_lifecycle import eventually
from tests.world import DEADLINE_S, Cloister

pytestmark = pytest.mark.sandbox

SERVER = """
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
print("serving", flush=True)
while True:
    connection, peer = listener.accept()
    with connection:
        data = bytearray()
        while part := connection.recv(1 << 16):
            data += part
        connection.sendall(data[::-1])
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
    return number


@contextmanager
def serving(cloister: Cloister, *options: str, address: str = "127.0.0.1", port: int = 3000) -> Iterator[subprocess.Popen[str]]:  # fmt: skip
    """A sandbox with a server that turns round what it gets."""
    process = cloister.start("run", *options, "--", "python3", "-u", "-c", SERVER, address, str(port))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n", process.communicate(timeout=10)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def turned(port: int, data: bytes, address: str = "127.0.0.1") -> bytes:
    with socket.create_connection((address, port), 20) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = bytearray()
        while part := client.recv(1 << 16):
            answer += part
    return bytes(answer)


def own_addresses() -> list[str]:
    """This machine's addresses but its loopback's."""
    return subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()


def is_refused(port: int, address: str = "127.0.0.1") -> bool:
    """Nobody listens, or whoever does closes at once with nothing said."""
    try:
        with socket.create_connection((address, port), 10) as client:
            return client.recv(1) == b""
    except (ConnectionRefusedError, ConnectionResetError):
        return True


@pytest.mark.parametrize("inside", ["127.0.0.1", "0.0.0.0", "::1"])
def test_a_server_of_the_sandbox_is_reached_on_both_loopbacks(cloister: Cloister, inside: str) -> None:
    here = free_port()
    with serving(cloister, "-p", f"{here}:3000", address=inside):
        assert turned(here, b"abc") == b"cba"
        assert turned(here, b"abc", "::1") == b"cba"
        for address in own_addresses():
            assert is_refused(here, address)
    assert is_refused(here)
    events = cloister.events("publish")
    assert [(one["port"], one["sent_bytes"], one["received_bytes"]) for one in events] == [(3000, 3, 3)] * 2
    eventually(lambda: not cloister.processes(), "the connector ends with its sandbox")


def test_64_mib_come_back_intact(cloister: Cloister) -> None:
    here, data = free_port(), os.urandom(1 << 20) * 64
    with serving(cloister, "-p", f"{here}:3000"):
        answer = turned(here, data)
    assert hashlib.sha256(answer).digest() == hashlib.sha256(data[::-1]).digest()


def test_a_configuration_publishes(cloister: Cloister) -> None:
    here = free_port()
    cloister.configure(f'[sandbox]\nports = ["{here}:3000"]')
    for _ in range(2):  # the second time with the stored plan
        with serving(cloister):
            assert turned(here, b"12") == b"21"


def test_a_project_publishes_only_what_was_adopted(cloister: Cloister) -> None:
    cloister.write(cloister.project / "cloister.toml", f'[sandbox]\nports = ["{free_port()}:3000"]')
    done = cloister.run("true")
    assert done.code == 125
    assert "has not been adopted" in done.err


def test_a_port_in_use_is_told_before_anything_starts(cloister: Cloister) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        here = taken.getsockname()[1]
        done = cloister("run", "-p", f"{here}:3000", "--", "touch", "started")
    assert done.code == 125
    assert done.err.startswith(f"cloister: port {here} of this machine is in use")
    assert ("pid" in done.err) == (cloister.identity.uid == 0), "who it is, if that may be known"
    assert f"-p {here + 1}:3000" in done.err
    assert not (cloister.project / "started").exists()
    assert not (cloister.home / ".local/state/cloister/projects").exists()


def test_two_sandboxes_of_one_configuration_stand_side_by_side(cloister: Cloister) -> None:
    here = free_port()
    cloister.configure(f'[sandbox]\nports = ["{here}:3000"]')
    with serving(cloister):
        done = cloister.run("true")
        assert f"port {here} of this machine is in use" in done.err
    cloister.configure('[sandbox]\nports = ["auto:18300"]')
    with serving(cloister, port=18300) as one, serving(cloister, port=18300) as other:
        found = []
        for process in (one, other):
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("cloister: port 18300 of the sandbox is http://127.0.0.1:"), line
            found.append(int(line.split()[-2].rpartition(":")[2]))
        assert found[0] != found[1]
        for port in found:
            assert turned(port, b"xy") == b"yx"


def test_ports_of_a_framework_are_found(cloister: Cloister) -> None:
    package = {"devDependencies": {"vite": "5"}, "scripts": {"dev": "vite --port 18400"}}
    cloister.write(cloister.project / "package.json", json.dumps(package))
    with serving(cloister, "-P", port=18400) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "cloister: publishing port 18400: package.json shows Vite\n"
        port = int(process.stderr.readline().split()[-2].rpartition(":")[2])
        assert turned(port, b"xy") == b"yx"


def test_without_a_server_the_connection_ends_at_once(user_cloister: Cloister) -> None:
    here = free_port()
    with serving(user_cloister, "-p", f"{here}:3001"):
        start = time.monotonic()
        assert is_refused(here)
        assert time.monotonic() - start < 5
    (event,) = user_cloister.events("publish")
    assert event["reason"] == "nothing listens on port 3001 in the sandbox"


@pytest.mark.parametrize("port", [53, 80, 443, 3128])
def test_net_7_the_gateways_ports_cannot_be_published(user_cloister: Cloister, port: int) -> None:
    """Whoever reaches them from outside would have the sandbox's network, credentials included."""
    done = user_cloister("run", "-p", f"18081:{port}", "--", "true")
    assert done.code == 2
    assert f"port {port} of the sandbox is the gateway's" in done.err


def test_net_7_a_plan_that_was_tampered_with_publishes_no_port_of_the_gateways(
    user_cloister: Cloister,
) -> None:
    """The state is outside of the sandbox's reach; still, no single check stands alone."""
    here = free_port()
    user_cloister.configure(f'[sandbox]\nports = ["{here}:3000"]')
    assert user_cloister.run("true").code == 0
    path = user_cloister.state / "plan.json"
    plan = json.loads(path.read_text())
    plan["sandbox"]["ports"] = [{"host": here, "sandbox": 3128}]
    user_cloister.write(path, json.dumps(plan), 0o600)
    done = user_cloister.sh("echo breached")
    assert done.code == 125
    assert "the stored plan is damaged" in done.err
    assert "breached" not in done.out


def test_net_7_a_published_port_is_no_way_out(cloister: Cloister) -> None:
    """From inside, neither the port of the host's side nor a service of the host is there, while both live."""
    here = free_port()
    attack = f"""
import socket, threading
listener = socket.create_server(("127.0.0.1", 3000))
print("serving", flush=True)
connection, peer = listener.accept()
reached = []
for address in ("127.0.0.1", "::1", "0.0.0.0", peer[0], "198.18.0.1"):
    for port in ({here}, {{}}, peer[1]):
        try:
            with socket.create_connection((address, port), 3):
                reached.append((address, port))
        except OSError:
            pass
# The socket that came in leads back to whoever connected, and to nobody else.
for family in (socket.AF_INET, socket.AF_UNSPEC):
    try:
        connection.connect((("127.0.0.1"), {{}}))
        reached.append("connected anew")
    except OSError:
        pass
connection.sendall(repr(reached).encode())
"""
    with socket.create_server(("127.0.0.1", 0)) as service:
        number = service.getsockname()[1]
        process = cloister.start(
            "run", "-p", f"{here}:3000", "--", "python3", "-u", "-c", attack.format(number, number)
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n", process.communicate(timeout=10)
        with socket.create_connection(("127.0.0.1", here), 30) as client:
            client.settimeout(30)
            assert client.recv(1000) == b"[]"
        process.communicate(timeout=DEADLINE_S)
        service.settimeout(0)
        with pytest.raises(BlockingIOError):
            service.accept()


def test_net_7_the_connector_is_out_of_the_sandboxs_sight(cloister: Cloister) -> None:
    here = free_port()
    with serving(cloister, "-p", f"{here}:3000"):
        turned(here, b"x")  # now it runs
        done = cloister.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls -l /proc/[0-9]*/fd")
        assert "forward" not in done.out


@pytest.mark.parametrize("victim", ["gateway", "session"])
def test_kill_leaves_no_port_and_no_connector(cloister: Cloister, victim: str) -> None:
    here = free_port()
    with serving(cloister, "-p", f"{here}:3000") as process:
        assert turned(here, b"x") == b"x"
        (record,) = cloister.state.glob("runs/*.json")
        content = json.loads(record.read_text())
        pid = content["session"][0] if victim == "session" else content["others"][0][0]
        os.kill(pid, signal.SIGKILL)
        process.wait(DEADLINE_S)
        eventually(lambda: is_refused(here), "nobody listens")
        eventually(lambda: not cloister.processes(), "every process of the sandbox is gone")
