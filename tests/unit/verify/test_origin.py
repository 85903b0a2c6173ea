"""The origin of a verification says what arrived, and takes nothing for whole that is not."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from cloister.policy.codec import parse_policy
from cloister.policy.names import parse_host
from cloister.verify import observed, oddities, origin, overlay
from cloister.verify.overlay import NAMES, Origins
from cloister.verify.place import Place

SECRET = "cvr-" + "0a" * 16


def noted(sent: bytes) -> tuple[bytes, bytes]:
    """What the origin notes of these bytes and then the end, and what it answers."""
    notes: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs = listener.accept()[0]
    ours.settimeout(5)
    serving = threading.Thread(target=origin.serve, args=(theirs, notes.append))
    serving.start()
    with ours:
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)
        serving.join(5)
        assert not serving.is_alive()
        theirs.close()
        answer = b""
        while part := ours.recv(65536):
            answer += part
    return b"\n".join(notes), answer


def post(path: str, headers: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("headers", "body", "whole"),
    [
        ("Content-Length: 4", b"four", True),
        ("Content-Length: 5", b"four", False),
        ("Transfer-Encoding: chunked", b"4\r\nfour\r\n0\r\n\r\n", True),
        ("Transfer-Encoding: chunked", b"4\r\nfour\r\n", False),
        ("Transfer-Encoding: chunked", b"4\r\nfour\r\n0\r\nX: a\r\n", False),
        ("X-None: 1", b"", True),
    ],
)
def test_a_request_of_a_cut_path_counts_once_it_is_whole(headers: str, body: bytes, whole: bool) -> None:
    notes, answer = noted(post("/cut-HTTP-3-size", headers, body))
    assert (b"attack-HTTP-3-whole" in notes) is whole
    assert answer.startswith(b"HTTP/1.1 200 ") is whole


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Length: 4", b"MARK"),
        ("Transfer-Encoding: chunked", b"4\r\nMARK\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"1;MARK=1\r\nx\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"0\r\nX: MARK\r\n\r\n"),
        (
            f"Content-Encoding: gzip\r\nContent-Length: {len(gzip.compress(b'MARK', mtime=0))}",
            gzip.compress(b"MARK", mtime=0),
        ),
    ],
)
def test_whatever_a_server_would_read_is_noted(headers: str, body: bytes) -> None:
    assert b"MARK" in noted(post("/", headers, body))[0]


def test_a_second_request_is_read_behind_the_first() -> None:
    notes, answer = noted(post("/one", "Content-Length: 2", b"ok") + b"GET /two HTTP/1.1\r\nHost: h\r\n\r\n")
    assert b"GET /two" in notes
    assert answer.count(b"HTTP/1.1 200") == 2


def test_a_message_is_noted_unmasked_and_comes_back() -> None:
    opening = b"GET /websocket HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: a\r\n\r\n"
    masked = bytes(byte ^ mask for byte, mask in zip(b"MARK", b"\1\2\3\4", strict=True))
    notes, answer = noted(opening + b"\x81\x84\1\2\3\4" + masked)
    assert b"websocket: MARK" in notes
    assert answer.endswith(b"\x81\x04MARK")


@pytest.mark.parametrize("path", [path for path in origin.ROUTES if path.startswith("/echo")])
def test_every_echo_holds_the_credential_in_some_way(path: str) -> None:
    """Else the probe of echoes would show nothing (its mutation shows that it is found)."""
    request = f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode()
    without = request.replace(SECRET.encode(), b"none")
    assert noted(request)[1] != noted(without)[1]


def place(tmp_path: Path) -> Place:
    found = Place.__new__(Place)
    for name, value in (("secret", SECRET), ("placeholder", "cvp-" + "1b" * 16)):
        object.__setattr__(found, name, value)
    assert tmp_path
    return found


def test_what_came_to_a_name_that_it_is_not_bound_to_is_a_breach_of_the_probe_that_sent_it(
    tmp_path: Path,
) -> None:
    head = f"GET /control-ID-6-followed HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode()
    known = place(tmp_path)
    assert observed.strayed([(NAMES["bound"], head)], known) == {}
    assert list(observed.strayed([(NAMES["judged"], head)], known)) == ["ID-6"]
    assert list(observed.strayed([("", known.placeholder.encode())], known)) == ["SECRET-1"]


def test_the_odd_files_are_what_they_are_called(tmp_path: Path) -> None:
    paths = oddities.made(str(tmp_path))
    assert stat.S_ISFIFO(os.lstat(paths["fifo"]).st_mode)
    assert stat.S_ISLNK(os.lstat(paths["link"]).st_mode)
    assert stat.S_IMODE(os.lstat(paths["readable"]).st_mode) == 0o644
    others = set(paths) - {"fifo", "link", "readable"}
    assert {stat.S_IMODE(os.lstat(paths[kind]).st_mode) for kind in others} == {0o600}
    assert all(
        b"attack-ID-10" in Path(paths[kind]).read_bytes() for kind in ("crlf", "lf", "cr", "nul", "link")
    )


def test_what_is_added_to_a_plan_is_a_policy() -> None:
    empty: dict[str, object] = {"bans": [], "grants": [], "credentials": [], "passthrough": []}
    push = {"refs": [], "delete": False, "force": False}
    plan: dict[str, object] = {
        "sandbox": {},
        "policy": {**empty, "push": push},
        "hosts": {},
        "upstream_ca": [],
    }
    origins = Origins(
        https_port=1443, http_port=1080, ca_file="/ca", secret_file="/secret", placeholder="cvp-" + "1b" * 16,
        odd_files={"crlf": "/odd"},
    )  # fmt: skip
    adapted = overlay.adapted(plan, origins)
    policy = parse_policy(adapted["policy"])
    assert {rule.pattern.name for rule in policy.grants} == {NAMES[which] for which in overlay.GRANTED}
    assert all(parse_host(name).name == name for name in NAMES.values())
    one, other = policy.credentials
    assert one.placeholder not in other.placeholder
    assert other.placeholder not in one.placeholder
