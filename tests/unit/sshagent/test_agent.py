"""The filtered agent in front of a real ssh-agent, with real keys."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.sshagent import known_hosts
from cloister.sshagent.filter import (
    FAILURE,
    SUCCESS,
    AgentRules,
    Answer,
    Filter,
    Forward,
    fingerprint,
    verifies,
)
from cloister.sshagent.server import AgentServer
from cloister.sshagent.wire import string

pytestmark = pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="openssh-client is not installed")


class Keys:
    """Two keys of the user's in an agent, and a host's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("allowed", "other", "host"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@test", "-f", directory / name],
                check=True,
            )
        self.socket = str(directory / "agent.sock")
        self.agent = subprocess.Popen(["ssh-agent", "-D", "-a", self.socket], stdout=subprocess.DEVNULL)
        while not os.path.exists(self.socket):
            if self.agent.poll() is not None:
                raise AssertionError("ssh-agent did not start")
        environment = {"SSH_AUTH_SOCK": self.socket, "PATH": os.environ["PATH"]}
        for name in ("allowed", "other"):
            subprocess.run(["ssh-add", "-q", directory / name], check=True, env=environment)

    def blob(self, name: str) -> bytes:
        return base64.b64decode((self.directory / f"{name}.pub").read_text().split()[1])

    def sign(self, name: str, data: bytes) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_ssh_private_key

        key = load_ssh_private_key((self.directory / name).read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return string(b"ssh-ed25519") + string(key.sign(data))


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    made = Keys(tmp_path)
    yield made
    made.agent.terminate()
    made.agent.wait(10)


SESSION = b"s" * 32


def bind(
    keys: Keys,
    *,
    session: bytes = SESSION,
    host: str = "host",
    signed: bytes | None = None,
    forwarding: int = 0,
) -> bytes:
    signature = keys.sign(host, session if signed is None else signed)
    return (
        b"\x1b"
        + string(b"session-bind@openssh.com")
        + string(keys.blob(host))
        + string(session)
        + string(signature)
        + bytes([forwarding])
    )


def login(blob: bytes, *, session: bytes = SESSION, service: bytes = b"ssh-connection") -> bytes:
    data = string(session) + b"\x32" + string(b"git") + string(service) + string(b"publickey") + b"\x01"
    return data + string(b"ssh-ed25519") + string(blob)


def sign_request(blob: bytes, data: bytes) -> bytes:
    return b"\x0d" + string(blob) + string(data) + b"\0\0\0\0"


def judge(keys: Keys) -> Filter:
    rules = AgentRules(
        keys=frozenset({fingerprint(keys.blob("allowed"))}), host_keys=frozenset({keys.blob("host")})
    )
    return Filter(rules)


def test_a_login_to_a_named_host_by_a_named_key_is_signed(keys: Keys) -> None:
    one = judge(keys)
    assert one.request(bind(keys)) == Answer(message=SUCCESS)
    assert isinstance(one.request(sign_request(keys.blob("allowed"), login(keys.blob("allowed")))), Forward)


def refused(answer: Answer | Forward) -> str:
    assert isinstance(answer, Answer)
    assert answer.message == FAILURE
    return answer.reason


def test_without_a_bound_session_nothing_is_signed(keys: Keys) -> None:
    assert "for which host" in refused(
        judge(keys).request(sign_request(keys.blob("allowed"), login(keys.blob("allowed"))))
    )


def test_what_is_refused(keys: Keys) -> None:
    allowed, other = keys.blob("allowed"), keys.blob("other")
    one = judge(keys)
    one.request(bind(keys))
    assert "not named" in refused(one.request(sign_request(other, login(other))))
    assert "another key" in refused(one.request(sign_request(allowed, login(other))))
    assert "no log-in" in refused(one.request(sign_request(allowed, login(allowed, session=b"t" * 32))))
    assert "no log-in" in refused(one.request(sign_request(allowed, login(allowed, service=b"x"))))
    assert "no log-in" in refused(
        one.request(sign_request(allowed, string(b"SSHSIG") + b"anything at all" * 9))
    )
    for kind in (17, 18, 19, 20, 22, 23, 25, 26, 0, 200):
        refused(one.request(bytes([kind]) + string(b"x")))


def test_a_host_must_prove_itself_and_be_named(keys: Keys) -> None:
    one = judge(keys)
    assert "does not verify" in refused(one.request(bind(keys, signed=b"another session")))
    stranger = judge(keys)
    stranger.request(bind(keys, host="other"))
    assert "none of [ssh] hosts" in refused(
        stranger.request(sign_request(keys.blob("allowed"), login(keys.blob("allowed"))))
    )


def test_the_agent_goes_no_further(keys: Keys) -> None:
    one = judge(keys)
    one.request(bind(keys, forwarding=1))
    assert "any further" in refused(
        one.request(sign_request(keys.blob("allowed"), login(keys.blob("allowed"))))
    )
    again = judge(keys)
    again.request(bind(keys))
    refused(again.request(bind(keys)))
    assert "any further" in refused(
        again.request(sign_request(keys.blob("allowed"), login(keys.blob("allowed"))))
    )


@pytest.mark.parametrize(
    ("kind", "bits"), [("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "521"), ("ed25519", "256")]
)
def test_signatures_of_every_kind_of_host_key(tmp_path: Path, kind: str, bits: str) -> None:
    """What ssh-agent itself signs with such a key verifies, and nothing else does."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", tmp_path / "key"], check=True)
    blob = base64.b64decode((tmp_path / "key.pub").read_text().split()[1])
    path = str(tmp_path / "agent.sock")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(path):
            assert agent.poll() is None
        environment = {"SSH_AUTH_SOCK": path, "PATH": os.environ["PATH"]}
        subprocess.run(["ssh-add", "-q", tmp_path / "key"], check=True, env=environment)
        flags = b"\0\0\0\x04" if kind == "rsa" else b"\0\0\0\0"  # SSH_AGENT_RSA_SHA2_512
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(string(b"\x0d" + string(blob) + string(b"the data") + flags))
            size = int.from_bytes(sock.recv(4, socket.MSG_WAITALL), "big")
            answer = sock.recv(size, socket.MSG_WAITALL)
        assert answer[0] == 14
        assert verifies(blob, answer[5:], b"the data")
        assert not verifies(blob, answer[5:], b"other data")
    finally:
        agent.terminate()
        agent.wait(10)


def test_ssh_add_and_ssh_keygen_through_the_server(keys: Keys) -> None:
    """The real client sees one key, may not remove it, and cannot sign a file with it."""
    path = str(keys.directory / "filtered.sock")
    lines: list[str] = []

    def client(*argv: str) -> str:
        environment = {"SSH_AUTH_SOCK": path, "PATH": os.environ["PATH"], "HOME": str(keys.directory)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout + done.stderr

    async def main() -> list[str]:
        async def confirm(_: str) -> bool:
            return True

        rules = AgentRules(keys=frozenset({"allowed@test"}), host_keys=frozenset({keys.blob("host")}))
        server = AgentServer(keys.socket, rules, confirm=confirm, log=lines.append)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        server.start(listener)
        (keys.directory / "file").write_text("text")
        said = [
            await asyncio.to_thread(client, "ssh-add", "-l"),
            await asyncio.to_thread(client, "ssh-add", "-D"),
            await asyncio.to_thread(
                client, "ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(keys.directory / "allowed.pub"),
                str(keys.directory / "file"),
            ),
            await asyncio.to_thread(client, "ssh-add", "-l"),
        ]  # fmt: skip
        await server.close()
        return said

    (keys.directory / "allowed").unlink()  # else ssh-keygen would sign with the file
    listed, removed, signed, again = asyncio.run(main())
    assert "allowed@test" in listed
    assert "other@test" not in listed
    assert again == listed
    assert "Failed to remove" in removed or "refused" in removed
    assert not (keys.directory / "file.sig").exists(), signed
    assert any("refused" in line for line in lines)


def test_known_hosts() -> None:
    key, other = base64.b64encode(b"key-blob").decode(), base64.b64encode(b"other").decode()
    hashed = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa " + key  # of 192.168.1.61
    text = (
        f"# comment\ngithub.com,140.82.1.1 ssh-ed25519 {key}\n[git.example.com]:2222 ssh-ed25519 {other}\n"
        f"@revoked github.com ssh-ed25519 {other}\n@cert-authority *.example.com ssh-rsa {key}\n{hashed}\nbroken line\nbad ssh-rsa \u0e01\n"
        f"*.internal,!bad.internal ssh-ed25519 {other}\n"
    )
    assert known_hosts.keys(text, ["github.com"]) == {b"key-blob"}
    assert known_hosts.keys(text, ["git.example.com"]) == {b"other"}
    assert known_hosts.keys(text, ["it.example.com"]) == frozenset()
    assert known_hosts.keys(text, ["192.168.1.61"]) == {b"key-blob"}
    assert known_hosts.keys(text, ["a.internal"]) == {b"other"}
    assert known_hosts.keys(text, ["bad.internal"]) == frozenset()
    assert known_hosts.lines(text, ["192.168.1.61"]) == hashed + "\n"


@given(st.binary(max_size=300))
def test_junk_is_refused_without_an_error(junk: bytes) -> None:
    one = Filter(AgentRules(keys=frozenset(), host_keys=frozenset()))
    answer = one.request(junk)
    assert isinstance(answer, Answer) or answer.lists
