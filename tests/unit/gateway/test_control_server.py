"""The control socket: who may speak, what is understood, and that it stays bounded."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cloister.gateway import control_server
from cloister.gateway.control_server import CONNECTIONS_LIMIT, ControlServer, answers
from cloister.gateway.vault import Vault
from tests.unit.gateway.test_vault import HOST, User, credential, settle, vault

Answer = dict[str, Any]  # JSON


def path_in(tmp_path: Path) -> Path:
    """Longer than what sun_path takes."""
    directory = tmp_path / ("d" * 90) / ("e" * 90)
    directory.mkdir(parents=True)
    return directory / "project-0123456789ab-abcdef.sock"


def connect(path: Path) -> socket.socket:
    directory = os.open(path.parent, os.O_PATH)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(f"/proc/self/fd/{directory}/{path.name}")
    os.close(directory)
    sock.setblocking(False)
    return sock


async def say(sock: socket.socket, data: bytes) -> bytes:
    """What comes back for `data`, up to an empty read or the end of a line."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, data)
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = await loop.sock_recv(sock, 65536)
        if not chunk:
            break
        answer += chunk
    return answer


async def ask(path: Path, **message: object) -> Answer:
    with connect(path) as sock:
        answer: Answer = json.loads(await say(sock, json.dumps(message).encode() + b"\n"))
        return answer


def run(tmp_path: Path, test: Callable[[Path, Vault, User], Awaitable[None]]) -> None:
    async def main() -> None:
        user = User()
        path = path_in(tmp_path)
        made = vault(user, credential("one", "env:TOKEN", confirm=True), credential("two", "env:TOKEN"))
        server = ControlServer(str(path), answers(made))
        server.start()
        try:
            await asyncio.wait_for(test(path, made, user), 20)
        finally:
            await server.close()
        assert not path.exists()
        await server.close()

    asyncio.run(main())


def test_a_question_is_shown_and_answered(tmp_path: Path) -> None:
    async def test(path: Path, made: Vault, _: User) -> None:
        assert await ask(path, op="pending") == {"pending": []}
        one = credential("one", "env:TOKEN", confirm=True)
        waiting = asyncio.create_task(made.get(one, HOST))
        await settle()
        shown = (await ask(path, op="pending"))["pending"][0]
        assert (shown["name"], shown["host"]) == ("one", HOST)
        assert await ask(path, op="approve", name="one") == {"done": True}
        assert (await waiting).secret.reveal() == b"t0ken"
        assert await ask(path, op="refuse", name="one") == {"done": True}
        listed = (await ask(path, op="credentials"))["credentials"]
        assert [(each["name"], each["state"]) for each in listed] == [
            ("one", "refused"),
            ("two", "not used yet"),
        ]
        assert "t0ken" not in json.dumps(listed)

    run(tmp_path, test)


def test_only_its_owner_can_reach_it(tmp_path: Path) -> None:
    async def test(path: Path, *_: object) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    os.umask(0)
    try:
        run(tmp_path, test)
    finally:
        os.umask(0o022)


BAD = [
    b"\n", b"{\n", b"[]\n", b"null\n", b"7\n", b'"pending"\n', b"{}\n", b'{"op": null}\n', b'{"op": []}\n',
    b'{"op": "approve"}\n', b'{"op": "approve", "name": 7}\n', b'{"op": "approve", "name": "none"}\n',
    b'{"op": "approve", "name": "two"}\n', b'{"op": "reveal", "name": "one"}\n', b"\xff\xfe\n", b"[" * 3000 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("line", BAD, ids=lambda line: repr(line[:30]))
def test_what_is_not_understood_is_said_and_changes_nothing(tmp_path: Path, line: bytes) -> None:
    async def test(path: Path, made: Vault, _: User) -> None:
        with connect(path) as sock:
            for data in (line, b'{"op": "pending"}\n'):
                answer = json.loads(await say(sock, data))
                assert set(answer) == ({"error"} if data is line else {"pending"})
        assert {state.word for state in made.states()} == {"not used yet"}

    run(tmp_path, test)


def test_byte_by_byte_and_two_at_once(tmp_path: Path) -> None:
    async def test(path: Path, *_: object) -> None:
        loop = asyncio.get_running_loop()
        with connect(path) as sock:
            for byte in b'{"op": "pending"}':
                await loop.sock_sendall(sock, bytes([byte]))
                await asyncio.sleep(0)
            assert await say(sock, b"\n") == b'{"pending": []}\n'
            await loop.sock_sendall(sock, b'{"op": "pending"}\n' * 2 + b'{"op"')
            answers = b""
            while answers.count(b"\n") < 2:
                answers += await loop.sock_recv(sock, 65536)
            assert answers == b'{"pending": []}\n' * 2

    run(tmp_path, test)


def test_an_endless_line_ends_the_connection(tmp_path: Path) -> None:
    async def test(path: Path, *_: object) -> None:
        started = asyncio.get_running_loop().time()
        with connect(path) as sock:
            with pytest.raises((BrokenPipeError, ConnectionResetError, EOFError)):
                while True:
                    if await say(sock, b"x" * 10_000) == b"":
                        raise EOFError
        assert asyncio.get_running_loop().time() - started < control_server.DEADLINE_S / 2
        assert await ask(path, op="pending") == {"pending": []}

    run(tmp_path, test)


def test_idle_connections_are_bounded_in_number_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_server, "DEADLINE_S", 0.3)

    async def test(path: Path, *_: object) -> None:
        loop = asyncio.get_running_loop()
        idle = [connect(path) for _ in range(CONNECTIONS_LIMIT)]
        await settle()
        with connect(path) as extra:
            assert await loop.sock_recv(extra, 1) == b""
        for sock in idle:
            assert await loop.sock_recv(sock, 1) == b""
            sock.close()
        assert await ask(path, op="pending") == {"pending": []}

    run(tmp_path, test)


CLIENT = """
import os, socket, sys
if sys.argv[2] == "uid": os.setuid(4711)
if sys.argv[2] == "namespace": os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else __import__("ctypes").CDLL(None).unshare(0x10000000)
os.chdir(os.path.dirname(sys.argv[1]))
sock = socket.socket(socket.AF_UNIX)
sock.connect(os.path.basename(sys.argv[1]))
try:
    sock.sendall(b'{"op": "pending"}\\n')
    print(sock.recv(100))
except OSError:
    print(b"")
"""


@pytest.mark.parametrize("who", ["plain", "uid", "namespace"])
def test_another_user_and_another_user_namespace_are_turned_away(who: str) -> None:
    if who == "uid" and os.geteuid() != 0:
        pytest.skip("becomes another user")

    async def test(path: Path, *_: object) -> None:
        for directory in (open_to_all, *open_to_all.rglob("*")):
            directory.chmod(0o777)  # the socket too: even then
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", CLIENT, str(path), who],
            capture_output=True,
            check=False,
            text=True,
        )
        assert done.stdout == ("b'{\"pending\": []}\\n'\n" if who == "plain" else "b''\n"), done.stderr

    with TemporaryDirectory(dir="/tmp") as name:
        open_to_all = Path(name)
        run(open_to_all, test)


def test_a_socket_that_a_killed_gateway_left_is_replaced(tmp_path: Path) -> None:
    path = path_in(tmp_path)
    path.write_text("")

    async def main() -> None:
        server = ControlServer(str(path), answers(vault(User())))
        server.start()
        assert await ask(path, op="pending") == {"pending": []}
        await server.close()

    asyncio.run(main())
