"""What is particular to a gateway in a container: what it gets of the host, and what happens when one half goes."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import engine_python
from tests.contract.conftest import World, _world
from tests.contract.test_crashes import eventually, nothing_is_left, record, up
from tests.contract.test_network import request, talk
from tests.engines import IMAGE, Engine
from tests.fakes.origins import Authority
from tests.fakes.web_origin import WebOrigin

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

API = "api.example.test"
TOKEN = "sesame-open-R3al0123456789"
ASK = (
    "import os, urllib.request; "
    f"asked = urllib.request.Request('https://{API}/', headers={{'Authorization': 'Bearer ' + os.environ['API_TOKEN']}}); "
    "print(urllib.request.urlopen(asked, timeout=60).status)"
)


@pytest.fixture
def outpost(request: pytest.FixtureRequest, scratch: Callable[[], Path]) -> Iterator[World]:
    """A world whose gateway runs in a container."""
    yield from _world("docker-gateway", request, scratch())


def configuration(world: World) -> str:
    return (world.cloister.home / ".config/cloister/config.toml").read_text()


def engine_of(world: World) -> Engine:
    assert world.engine is not None
    return world.engine


def gateway_of(world: World) -> str:
    (found,) = [name for name in world.containers() if name.endswith("-gateway")]
    return found


def test_it_gets_nothing_of_the_host(outpost: World) -> None:
    up(outpost)
    (found,) = json.loads(engine_of(outpost)("inspect", gateway_of(outpost)))
    assert [(one["Type"], one["Destination"]) for one in found["Mounts"]] == [("volume", "/cloister-holder")]
    given = {one.split("=")[0] for one in found["Config"]["Env"]}
    assert given <= {"LD_LIBRARY_PATH", "PATH"}
    assert str(outpost.cloister.home) not in json.dumps({**found, "HostConfig": {**found["HostConfig"], "SecurityOpt": []}})  # fmt: skip
    assert found["HostConfig"]["LogConfig"]["Type"] == "none"
    assert found["HostConfig"]["PortBindings"] in (None, {})
    pid = found["State"]["Pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert {status[key] for key in ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split()[0] != "0"


def test_the_agent_has_nothing_of_it(outpost: World) -> None:
    """NET-7: neither the volume with the holder's socket, nor a way to the gateway's own address."""
    up(outpost)
    looked = outpost.sh("ls /cloister-holder 2>&1 | grep -c 'No such file'")
    assert looked.out == "1\n", looked
    template = "--format={{.NetworkSettings.IPAddress}}"
    address = engine_of(outpost)("inspect", template, gateway_of(outpost))
    assert address
    for port in (22, 3128, 8080):
        expected = "no: Connection refused"
        assert talk(outpost, address, port) == expected


@contextmanager
def with_a_credential(world: World, authority: Authority, more: str = "") -> Iterator[WebOrigin]:
    """Configure one for API, of which this is the origin, with a Python in the image. `more` of its settings."""
    with engine_python.image(engine_of(world)) as name, WebOrigin(authority, API) as origin:
        text = configuration(world).replace(f'"{IMAGE}"', f'"{name}"')
        world.cloister.configure(
            f'{text}"{API}" = "127.0.0.1:{origin.port}"\n'
            f'[[credential]]\nname = "api"\nsource = "env:REAL_TOKEN"\nhosts = ["{API}"]\ninject = "bearer"\n'
            f'env = "API_TOKEN"\n{more}'
        )
        world.cloister.extra_environment["REAL_TOKEN"] = TOKEN
        yield origin


@pytest.fixture
def asking(outpost: World, authority: Authority) -> Iterator[tuple[World, WebOrigin]]:
    """A world whose only credential asks, with a Python in its image."""
    with with_a_credential(outpost, authority, "confirm = true\n") as origin:
        yield outpost, origin


def test_a_credential_is_fetched_on_the_host_once_the_user_has_said_yes(
    asking: tuple[World, WebOrigin],
) -> None:
    world, origin = asking
    process = world.cloister.start("run", "--", "/usr/bin/python3", "-c", ASK)
    world.cloister.until_asked("api", deadline_s=60)
    assert not origin.seen
    gateway = gateway_of(world)
    (inspected,) = json.loads(engine_of(world)("inspect", gateway))
    memory = Path(f"/proc/{inspected['State']['Pid']}/mem"), Path(f"/proc/{inspected['State']['Pid']}/maps")
    if os.geteuid() == 0:
        assert not holds(*memory, TOKEN.encode()), "the value is there before it is allowed"
    assert world.cloister("approve", "api").code == 0
    out, err = process.communicate(timeout=60)
    assert out == "200\n", err
    assert [one.headers["authorization"] for one in origin.seen] == [f"Bearer {TOKEN}"]
    assert TOKEN not in json.dumps(inspected) + out + err
    nothing_runs(world)


def holds(memory: Path, maps: Path, wanted: bytes) -> bool:
    """Whether a process's writable memory holds these bytes."""
    with memory.open("rb", buffering=0) as file:
        for line in maps.read_text().splitlines():
            area, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(one, 16) for one in area.split("-"))
                try:
                    file.seek(start)
                    if wanted in file.read(end - start):
                        return True
                except OSError:
                    continue
    return False


def test_published_ports_lead_into_the_sandbox(outpost: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = configuration(outpost)
    outpost.cloister.configure(text.replace("[sandbox]", f'[sandbox]\nports = ["{port}:3000"]'))
    server = (
        "use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 3000, Listen => 5, "
        "ReuseAddr => 1) or die; $| = 1; print 'serving', chr(10); while (my $c = $l->accept) { my $n = 0; my $d; "
        "while (my $r = sysread($c, $d, 65536)) { $n += $r } print $c \"got $n \" . ('y' x 3000000); close $c }"
    )
    process = outpost.cloister.start("run", "--", "/usr/bin/perl", "-e", server)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n", process.communicate(timeout=10)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"x" * 5_000_000)
            connection.shutdown(socket.SHUT_WR)
            answer = bytearray()
            while part := connection.recv(1 << 16):
                answer += part
        assert answer == b"got 5000000 " + b"y" * 3_000_000
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
    assert any(event["port"] == 3000 for event in outpost.cloister.events("publish"))


def test_a_published_port_without_a_server_is_reset(outpost: World) -> None:
    """A stream's reset passes on as one: nobody takes it for an empty answer."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = configuration(outpost)
    outpost.cloister.configure(text.replace("[sandbox]", f'[sandbox]\nports = ["{port}:3000"]'))
    up(outpost)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection, pytest.raises(ConnectionResetError):  # fmt: skip
        connection.recv(1)


def test_while_the_log_cannot_be_written_nothing_new_leaves(outpost: World) -> None:
    """ADR 40, over two processes and a container."""
    up(outpost)
    assert "origin saw GET /before" in talk(outpost, "plain.example.test", 80, request("plain.example.test", "/before"))  # fmt: skip
    log = outpost.cloister.state / "audit/audit.jsonl"
    log.rename(f"{log}.away")
    log.mkdir()
    eventually(lambda: " 503 " in talk(outpost, "plain.example.test", 80, request("plain.example.test", "/during")) or
               "cannot be written" in talk(outpost, "plain.example.test", 80, request("plain.example.test", "/during")))  # fmt: skip
    log.rmdir()
    Path(f"{log}.away").rename(log)
    eventually(lambda: "origin saw GET /after" in talk(outpost, "plain.example.test", 80, request("plain.example.test", "/after")))  # fmt: skip


def test_the_client_of_its_container_is_killed(outpost: World) -> None:
    """The engine's client is what the two halves talk over: its end is the gateway's, and so the sandbox's."""
    others = up(outpost)["others"]
    assert isinstance(others, list)
    children = Path(f"/proc/{others[0][0]}/task/{others[0][0]}/children").read_text().split()
    assert children
    os.kill(int(children[0]), signal.SIGKILL)
    eventually(lambda: not list((outpost.cloister.state / "runs").glob("*.json")))
    nothing_is_left(outpost)


def test_the_sandbox_does_not_outlive_its_supervisor(outpost: World) -> None:
    """The host's half removes the agent's container by itself; the next command finds the rest."""
    session = up(outpost)["session"]
    assert isinstance(session, list)
    os.kill(session[0], signal.SIGKILL)
    eventually(lambda: not [name for name in outpost.containers() if name.endswith("-agent")])
    assert outpost.cloister("ls", timeout_s=60).code == 0
    assert outpost.cloister("run", "--", "/bin/true", timeout_s=120).code == 0
    nothing_runs(outpost)


def test_a_hung_gateway_is_told_and_nothing_leaves(outpost: World) -> None:
    up(outpost)
    engine_of(outpost)("pause", gateway_of(outpost))
    try:
        (log,) = (outpost.cloister.state / "sandboxes").glob("*.log")
        eventually(lambda: "the gateway does not answer" in log.read_text())
        assert record(outpost)
    finally:
        engine_of(outpost)("unpause", gateway_of(outpost))
    eventually(lambda: "the gateway answers again" in log.read_text())


def test_an_ssh_agent_is_refused_by_name(outpost: World) -> None:
    outpost.cloister.configure(
        configuration(outpost)
        + f'[ssh]\nagent = true\nkeys = ["SHA256:{"A" * 43}"]\nhosts = ["github.com"]\n'
    )
    done = outpost.cloister("run", "--", "/bin/true", timeout_s=120)
    assert done.code == 125
    assert "an SSH agent cannot be forwarded where the gateway runs in a container" in done.err
    assert 'gateway = "host"' in done.err
    nothing_runs(outpost)


@pytest.fixture
def machine(request: pytest.FixtureRequest, scratch: Callable[[], Path]) -> Iterator[World]:
    """A world whose engine says that it runs on another kernel."""
    yield from _world("docker-vm", request, scratch())


def test_in_a_machine_nothing_of_this_kernel_is_relied_on(machine: World) -> None:
    """No FIFO in a shared directory, no process number of another kernel; the gateway is beside the sandbox unasked."""
    found = up(machine)
    assert found["init"] is None
    assert gateway_of(machine)
    public = Path(str(found["public_directory"]))
    assert not [one for one in public.iterdir() if one.is_fifo()]
    assert machine.sh("exit 5").code == 5


def test_what_the_host_replaces_stops_a_sandbox_in_a_machine(machine: World) -> None:
    """FS-1: the kernel takes the mount away, and there nobody can put it back."""
    repository = machine.cloister.project / ".git"
    for name in ("objects", "refs", "hooks"):
        machine.cloister.directory(repository / name)
    machine.cloister.write(repository / "HEAD", "ref: refs/heads/main\n")
    config = machine.cloister.write(repository / "config", "[core]\n\trepositoryformatversion = 0\n")
    up(machine)
    plant = "echo '[core]' >> .git/config"
    assert machine.sh(plant).code != 0
    machine.cloister.write(repository / "other", "").unlink()
    assert machine.sh("exit 6").code == 6, "what is not protected may come and go"
    machine.cloister.write(repository / "config.lock", "[user]\n\tname = Ada\n").rename(config)
    (log,) = (machine.cloister.state / "sandboxes").glob("*.log")
    eventually(lambda: "so the sandbox was stopped" in log.read_text())
    assert machine.sh(plant).code != 0
    assert Path(config).read_text() == "[user]\n\tname = Ada\n"
    assert machine.containers() == machine.volumes() == []


def test_a_signal_reaches_the_command_in_a_machine(machine: World) -> None:
    script = "trap 'echo got; exit 7' TERM; echo on; while :; do sleep 1; done"
    process = machine.cloister.start("run", "--", "/bin/sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n", process.communicate(timeout=10)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == ("got\n", 7), err


def test_a_second_sandbox_of_a_workspace_is_refused_in_a_machine(machine: World) -> None:
    """It could exchange directories while the other is made, and nobody here sees the mounts."""
    up(machine)
    done = machine.cloister("run", "--", "/bin/true", timeout_s=120)
    assert done.code == 125
    assert "another sandbox of this workspace is alive" in done.err
    assert machine.sh("exit 4").code == 4


def test_podman_too(request: pytest.FixtureRequest, scratch: Callable[[], Path]) -> None:
    """As root. Without root its network needs a tun device, which not every machine has."""
    for world in _world("podman-root", request, scratch()):
        world.cloister.configure(configuration(world).replace('gateway = "host"', 'gateway = "container"'))
        script = (
            f"use strict; no strict 'vars'; @ARGV = ('plain.example.test', 80, {json.dumps(request_line())});"
        )
        done = world.cloister("run", "--", "/usr/bin/perl", "-e", script + GET_ONE, timeout_s=120)
        assert "origin saw GET /podman" in done.out, done
        nothing_runs(world)


GET_ONE = (
    "use IO::Socket::INET; my $s = IO::Socket::INET->new(PeerHost => $ARGV[0], PeerPort => $ARGV[1]) or die; "
    "print $s $ARGV[2]; local $/; print <$s>;"
)


def request_line() -> str:
    return request("plain.example.test", "/podman")


def nothing_runs(world: World) -> None:
    deadline = time.monotonic() + 60
    while world.containers() or world.volumes():
        assert time.monotonic() < deadline, (world.containers(), world.volumes())
    assert list((world.cloister.state / "runs").glob("*")) == []
