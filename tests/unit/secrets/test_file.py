"""ID-10: a secret file that is a link, a FIFO, readable by others, or where the sandbox can write."""

from __future__ import annotations

import os
import socket
import time

import pytest

from cloister.errors import CredentialError
from tests.unit.secrets.conftest import World


def refusal(world: World, text: str, **how: object) -> str:
    with pytest.raises(CredentialError) as caught:
        world.fetch(text, **how)
    return str(caught.value)


def test_a_home_and_an_absolute_path(world: World) -> None:
    path = world.secret_file("token", b"s3cret\n")
    assert world.value("file:~/token") == world.value(f"file:{path}") == b"s3cret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_others_have_access(world: World, mode: int) -> None:
    path = world.secret_file("token", b"s3cret", mode)
    message = refusal(world, f"file:{path}")
    assert f"mode {mode:03o}" in message
    assert f"chmod 600 '{path}'" in message


def test_a_symbolic_link(world: World) -> None:
    os.symlink(world.secret_file("token", b"s3cret"), world.home / "link")
    assert "symbolic link" in refusal(world, "file:~/link")


def test_a_link_in_the_middle_is_followed(world: World) -> None:
    world.secret_file("token", b"s3cret")
    os.symlink(world.home, world.home / "also")
    assert world.value("file:~/also/token") == b"s3cret"


def test_a_fifo_is_refused_without_hanging(world: World) -> None:
    os.mkfifo(world.home / "fifo", 0o600)
    started = time.monotonic()
    assert "not a regular file" in refusal(world, "file:~/fifo")
    assert time.monotonic() - started < 2


def test_what_else_is_no_file(world: World) -> None:
    (world.home / "directory").mkdir(mode=0o700)
    assert "not a regular file" in refusal(world, "file:~/directory")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(world.home / "socket"))
        assert "not a regular file" in refusal(world, "file:~/socket")
    assert "no such file" in refusal(world, "file:~/nothing")
    assert "not a regular file" in refusal(world, "file:/dev/null")


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_somebody_elses_file(world: World) -> None:
    path = world.secret_file("token", b"s3cret")
    os.chown(path, 4711, 4711)
    assert "belongs to another user (uid 4711)" in refusal(world, "file:~/token")


def test_where_the_sandbox_writes_no_secret_is_read(world: World) -> None:
    workspace = world.home / "project"
    workspace.mkdir()
    world.secret_file("project/token", b"s3cret")
    world.secret_file("project-x", b"fine")
    untrusted = (str(workspace),)
    assert "where the sandbox can write" in refusal(world, "file:~/project/token", untrusted=untrusted)
    os.symlink(workspace, world.home / "detour")
    assert "where the sandbox can write" in refusal(world, "file:~/detour/token", untrusted=untrusted)
    os.symlink(world.home, workspace / "out")  # placed by the agent: leads to any file of the user
    assert "where the sandbox can write" in refusal(
        world, "file:~/project/out/project-x", untrusted=untrusted
    )
    assert world.value("file:~/project-x", untrusted=untrusted) == b"fine"
