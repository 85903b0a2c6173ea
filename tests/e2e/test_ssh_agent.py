"""The user's SSH agent in the sandbox: real ssh logs in where it may, and nowhere else."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fakes.origins import free_port
from tests.world import Cloister

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not os.path.exists(SSHD), reason="openssh-server is not installed (CI installs it)"),
]

HOST, OTHER = "git.example.test", "other.example.test"
DEADLINE_S = 20.0


class Server:
    """An sshd on a loopback port that lets one key in, as root, and runs one command."""

    def __init__(self, directory: Path, allowed: str) -> None:
        directory.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "host"], check=True)
        self.key = (directory / "host.pub").read_text().split(" ", 2)
        keys = directory / "authorized_keys"
        keys.write_text(allowed)
        keys.chmod(0o600)
        self.port = free_port()
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges
        options = {
            "Port": self.port, "ListenAddress": "127.0.0.1", "HostKey": directory / "host", "AuthorizedKeysFile": keys,
            "StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no", "PermitRootLogin": "yes",
            "PidFile": "none", "ForceCommand": "echo logged in",
        }  # fmt: skip
        (directory / "config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        self.process = subprocess.Popen([SSHD, "-D", "-f", directory / "config"], stderr=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
        raise AssertionError("sshd did not start")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def listens(path: Path) -> bool:
    """Whether somebody takes connections there; a socket is there before that."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture(params=["logs"])
def world(request: pytest.FixtureRequest, cloister: Cloister) -> Iterator[tuple[Cloister, Server, Server]]:
    """Two servers that would let the user's key in; the configuration names one. The agent runs as the user.

    Parametrized with "asks", each signature waits for the user's word.
    """
    with ExitStack() as stack:
        ssh = cloister.directory(cloister.home / ".ssh")
        for name in ("allowed", "second"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@test", "-f", ssh / name],
                check=True,
            )
            cloister.own(ssh / name)
        public = (ssh / "allowed.pub").read_text() + (ssh / "second.pub").read_text()
        servers = [Server(cloister.base / f"sshd-{number}", public) for number in range(2)]
        for server in servers:
            stack.callback(server.close)
        lines = [
            f"[{name}]:{server.port} {server.key[0]} {server.key[1]}\n"
            for name, server in zip((HOST, OTHER), servers, strict=True)
        ]
        cloister.write(ssh / "known_hosts", "".join(lines))
        path = cloister.base / "agent.sock"
        agent = subprocess.Popen(
            [*cloister.identity.prefix, "ssh-agent", "-D", "-a", str(cloister.home / "a.sock")],
            stdout=subprocess.DEVNULL,
        )
        stack.callback(agent.wait, 10)
        stack.callback(agent.terminate)
        path = cloister.home / "a.sock"
        end = time.monotonic() + DEADLINE_S
        while not listens(path) and time.monotonic() < end:
            assert agent.poll() is None
        environment = {"SSH_AUTH_SOCK": str(path), "PATH": os.environ["PATH"]}
        for name in ("allowed", "second"):
            subprocess.run(
                [*cloister.identity.prefix, "ssh-add", "-q", str(ssh / name)], check=True, env=environment
            )
        cloister.extra_environment["SSH_AUTH_SOCK"] = str(path)
        pins = "".join(f'"{n}" = "127.0.0.1:{s.port}"\n' for n, s in zip((HOST, OTHER), servers, strict=True))
        allow = [f"tcp://{n}:{s.port}" for n, s in zip((HOST, OTHER), servers, strict=True)]
        settings = (
            f"[network]\nallow = {allow}\n[network.hosts]\n{pins}"
            f'[ssh]\nagent = true\nkeys = ["allowed@test"]\nhosts = ["{HOST}"]\n'
        )
        cloister.configure(settings if request.param == "asks" else f"{settings}confirm = false\n")
        yield cloister, servers[0], servers[1]


def login(host: str, server: Server, options: str = "") -> str:
    return f"timeout 20 ssh -n -o BatchMode=yes {options or '-o StrictHostKeyChecking=yes'} -p {server.port} root@{host} x"


def test_ssh_logs_in_where_it_may_and_nowhere_else(world: tuple[Cloister, Server, Server]) -> None:
    cloister, server, other = world
    done = cloister.sh(login(HOST, server))
    assert "logged in" in done.out, (done, cloister.events("sign"))
    assert any("signed a log-in" in str(event.get("text")) for event in cloister.events("sign"))
    done = cloister.sh(login(OTHER, other, "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"))
    assert "logged in" not in done.out
    assert "Permission denied" in done.err
    assert any("none of [ssh] hosts" in str(event.get("text")) for event in cloister.events("sign"))


@pytest.mark.parametrize("world", ["asks"], indirect=True)
@pytest.mark.parametrize(
    ("word", "logged_in"), [((), True), (("--deny",), False)], ids=["approved", "denied"]
)
def test_each_signature_waits_for_the_users_word(
    world: tuple[Cloister, Server, Server], word: tuple[str, ...], *, logged_in: bool
) -> None:
    cloister, server, _ = world
    process = cloister.start("run", "--", "sh", "-c", login(HOST, server))
    cloister.until_asked("ssh-agent")
    assert cloister("approve", *word, "ssh-agent").code == 0
    out, err = process.communicate(timeout=DEADLINE_S)
    assert ("logged in" in out) is logged_in, (out, err)


def test_the_sandbox_sees_the_named_key_and_no_more(world: tuple[Cloister, Server, Server]) -> None:
    cloister, _, _ = world
    done = cloister.sh("ssh-add -l; ssh-add -D; ssh-add -l; ls ~/.ssh 2>&1 | grep -c allowed")
    assert done.out.count("allowed@test") == 2, done
    assert "second@test" not in done.out
    assert done.out.rstrip().endswith("0")


def test_without_an_agent_the_user_is_told(world: tuple[Cloister, Server, Server]) -> None:
    cloister, server, _ = world
    del cloister.extra_environment["SSH_AUTH_SOCK"]
    done = cloister.sh(login(HOST, server))
    assert "there is no SSH agent to forward" in done.err
    assert "Permission denied" in done.err
