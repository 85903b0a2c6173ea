"""Asking an engine itself: what is expected, and what is left to its client."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloister.engines import api

OK = b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"Id": "sha256:1", "Config": {"Env": null}}'
NO_ANSWERS = {
    "missing": b'HTTP/1.0 404 Not Found\r\n\r\n{"message": "No such image"}',
    "nothing": b"",
    "half a head": b"HTTP/1.0 200 OK\r\nContent-Type",
    "no status": b"HTTP/1.0\r\n\r\n{}",
    "another protocol": b"SSH-2.0-OpenSSH 200 x\r\n\r\n{}",
    "no JSON": b"HTTP/1.0 200 OK\r\n\r\n{",
    "not UTF-8": b"HTTP/1.0 200 OK\r\n\r\n\xff",
    "a list": b"HTTP/1.0 200 OK\r\n\r\n[]",
    "too long": b"HTTP/1.0 200 OK\r\n\r\n" + b" " * api.LIMIT_BYTES,
}


@contextmanager
def engine(path: Path, answer: bytes, heard: list[bytes]) -> Iterator[str]:
    """An engine that hears one request, and says `answer`."""
    where = str(path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where)
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(1 << 16))
                try:
                    connection.sendall(answer)
                except OSError:  # the asker had enough
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield where
        finally:
            thread.join()


def test_an_image_is_looked_up(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with engine(tmp_path, OK, heard) as where:
        assert api.look_up(where, "images", "ghcr.io/acme/tools:1@sha256:ab") == {
            "Id": "sha256:1",
            "Config": {"Env": None},
        }
    assert heard[0].startswith(b"GET /images/ghcr.io/acme/tools:1@sha256:ab/json HTTP/1.0\r\n")


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_what_is_no_answer_is_left_to_the_client(tmp_path: Path, answer: bytes) -> None:
    with engine(tmp_path, answer, []) as where:
        assert api.look_up(where, "images", "debian") is None


def test_an_engine_that_hangs_is_left_to_the_client(tmp_path: Path) -> None:
    where = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where)
        listener.listen(1)  # and nobody accepts
        assert not api.start(where, "one", timeout_s=0.05)
    assert not api.start(where, "one", timeout_s=0.05)  # nobody listens any more


@pytest.mark.parametrize("name", ["", "a b", "a\r\nX: y", "../version", "a?x=1", "a%2fb", "é"])
def test_only_plain_names_are_asked_for(tmp_path: Path, name: str) -> None:
    assert api.look_up(str(tmp_path / "nobody"), "images", name) is None
    assert not api.start(str(tmp_path / "nobody"), name, timeout_s=1)


@pytest.mark.parametrize(
    ("status", "started"), [(b"204 No Content", True), (b"304 Not Modified", False), (b"409 Conflict", False)]
)
def test_started_is_only_what_the_engine_has_started(tmp_path: Path, status: bytes, started: bool) -> None:
    heard: list[bytes] = []
    with engine(tmp_path, b"HTTP/1.0 " + status + b"\r\n\r\n", heard) as where:
        assert api.start(where, "cloister-1-agent", timeout_s=5) is started
    assert heard[0].startswith(b"POST /containers/cloister-1-agent/start HTTP/1.0\r\n")


@pytest.mark.parametrize(
    ("environment", "context", "expected"),
    [
        ({}, None, api.DEFAULT_SOCKET),
        ({}, "default", api.DEFAULT_SOCKET),
        ({}, "", api.DEFAULT_SOCKET),
        ({}, "remote", None),
        ({"DOCKER_CONTEXT": "remote"}, None, None),
        ({"DOCKER_CONTEXT": "default"}, "remote", None),
        ({"DOCKER_HOST": "unix:///run/user/1/docker.sock"}, "remote", "/run/user/1/docker.sock"),
        ({"DOCKER_HOST": "unix:///a.sock", "DOCKER_CONTEXT": "remote"}, None, "/a.sock"),
        ({"DOCKER_HOST": "tcp://10.0.0.1:2375"}, None, None),
        ({"DOCKER_HOST": "ssh://host"}, None, None),
        ({"DOCKER_HOST": "unix://relative.sock"}, None, None),
    ],
)
def test_it_is_the_engine_of_the_client(
    tmp_path: Path, environment: dict[str, str], context: str | None, expected: str | None
) -> None:
    (tmp_path / ".docker").mkdir()
    if context is not None:
        (tmp_path / ".docker/config.json").write_text(json.dumps({"currentContext": context}))
    assert api.address({"HOME": str(tmp_path), **environment}) == expected


def test_settings_that_cannot_be_read_choose_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert api.address({"DOCKER_CONFIG": str(tmp_path)}) is None
