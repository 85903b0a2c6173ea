"""Credentials through a whole gateway: TLS on both sides, an origin that shows what reached it."""

from __future__ import annotations

import base64
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived

from cloister.audit.log import Event
from cloister.gateway.services import Deadlines
from tests.fakes.origin import Origin, Seen, Serve, respond
from tests.fakes.origins import Authority
from tests.unit.gateway.harness import Harness, plan, read_all, rule

NAME, OTHER, FREE = "api.example.com", "other.example.com", "free.example.com"
SECRET = "sesame/open+1234567890"
PLACEHOLDER = "cloister_placeholder_abcdefgh"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BEARER: dict[str, object] = {"kind": "header", "name": "authorization", "template": "Bearer {}"}
REPLACE: dict[str, object] = {"kind": "replace"}


class World:
    """A gateway, an origin with a certificate for NAME and OTHER, and the sandbox's ways to ask."""

    def __init__(
        self,
        directory: Path,
        serve: Serve,
        *,
        inject: dict[str, object] = BEARER,
        names: tuple[str, ...] = (NAME, OTHER),
        trusted: bool = True,
        more: dict[str, object] | None = None,
        grants: tuple[dict[str, object], ...] = (),
        push: tuple[str, ...] = (),
        source: str = "env:CLOISTER_TEST_SECRET",
        deadlines: Deadlines | None = None,
        secure: bool = True,
    ) -> None:
        authority = Authority()
        (directory / "ca.pem").write_text(authority.pem if trusted else Authority().pem)
        self.origin = Origin(serve, tls=authority.context(names) if secure else None)
        self.credential: dict[str, object] = {
            "name": "api",
            "source": source,
            "placeholder": PLACEHOLDER,
            "confirm": False,
            "repositories": [],
            "read_only": False,
            "bindings": [
                {"reach": "exact", "name": NAME, "ports": [443], "paths": [], "inject": inject},
            ],
        } | (more or {})
        compiled = plan(
            *(grants or (rule(NAME), rule(OTHER, methods=["GET", "POST"]), rule(FREE))),
            hosts=dict.fromkeys((NAME, OTHER, FREE), ("127.0.0.1", self.origin.port)),
            credentials=[self.credential],
            push=push,
            upstream_ca=(str(directory / "ca.pem"),),
        )
        self.sandbox = Harness(compiled, directory=directory, deadlines=deadlines or Deadlines(head_s=5.0))
        self.sandbox.__enter__()

    def close(self) -> None:
        self.sandbox.__exit__(None, None, None)
        self.origin.close()

    def tls(self, name: str = NAME) -> ssl.SSLSocket:
        """A TLS connection as the sandbox makes it, under the sandbox's CA."""
        sock = self.sandbox.dial_name(name, 443)
        return self.sandbox.trusting().wrap_socket(sock, server_hostname=name, suppress_ragged_eofs=False)

    def ask(self, request: bytes, name: str = NAME) -> bytes:
        """One request on a connection of its own; all that comes back."""
        connection = self.tls(name)
        connection.sendall(request)
        return read_answer(connection)

    @property
    def seen(self) -> bytes:
        return b"".join(bytes(seen.data) for seen in self.origin.seen)

    def alarm(self) -> Event:
        return self.sandbox.log.wait(lambda event: event.kind == "alarm")


Start = Callable[..., World]
ESCAPED = ('{"k": "' + "".join(f"\\u{ord(c):04X}" for c in PLACEHOLDER) + '"}').encode()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setenv("CLOISTER_TEST_SECRET", SECRET)
    running: list[World] = []

    def run(serve: Serve | None = None, **more: object) -> World:
        world = World(tmp_path, serve or respond(OK), **more)  # type: ignore[arg-type]  # World says what there is
        running.append(world)
        return world

    yield run
    for world in running:
        world.close()


def read_answer(connection: ssl.SSLSocket) -> bytes:
    """A response with a Content-Length, or chunked; or what there is until the end."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            if not (part := connection.recv(65536)):
                return data
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        lower = head.lower()
        while b"transfer-encoding: chunked" in lower and not body.endswith(b"0\r\n\r\n"):
            if not (part := connection.recv(65536)):
                break
            body += part
        for line in lower.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                while len(body) < int(line[15:]):
                    if not (part := connection.recv(65536)):
                        break
                    body += part
    except (ssl.SSLEOFError, ConnectionResetError):
        return data + b"<cut>"
    return head + b"\r\n\r\n" + body


def get(
    path: str = "/", *, host: str = NAME, extra: str = "", method: str = "GET", body: bytes = b""
) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}{length}\r\n".encode() + body


def test_the_value_goes_in_and_what_the_client_put_there_goes_out(start: Start) -> None:
    """ID-7: in odd case, twice, named by Connection."""
    world = start()
    extra = "AUTHORIZATION: Bearer mine\r\nauthorization: Basic eDp5\r\nConnection: authorization\r\n"
    assert world.ask(get(extra=extra)).endswith(b"ok")
    assert world.seen.lower().count(b"authorization:") == 1
    assert f"authorization: Bearer {SECRET}\r\n".encode() in world.seen


def test_an_agent_without_any_token_is_served_too(start: Start) -> None:
    world = start()
    assert world.ask(get()).startswith(b"HTTP/1.1 200 ")
    assert SECRET.encode() in world.seen


@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        base64.b64encode(f"user:{SECRET}".encode()).decode(),
        base64.b64encode(f"a:{SECRET}:b".encode()).decode(),
        SECRET.replace("/", "%2F").replace("+", "%2B"),
        SECRET.replace("/", "%2f").replace("+", "%2b"),
        SECRET.replace("/", "\\/"),
        SECRET.encode().hex(),
    ],
)
def test_id_9_an_echo_is_masked_in_head_and_body(start: Start, echo: str) -> None:
    body = f'{{"you sent": "{echo}"}}'.encode()
    head = f"HTTP/1.1 401 No\r\nX-Echo: {echo}\r\nLocation: /?t={echo}\r\nContent-Length: {len(body)}\r\n\r\n"
    world = start(respond(head.encode() + body))
    answer = world.ask(get())
    assert echo.encode() not in answer
    assert answer.count(b"******") >= 3
    assert b"you sent" in answer


def test_id_9_an_echo_over_parts_and_gzip_is_masked(start: Start) -> None:
    packed = gzip.compress(f"before {SECRET} behind".encode())

    def serve(seen: Seen, sock: socket.socket) -> None:
        for kind in (b"plain", b"gzip"):
            while b"\r\n\r\n" not in seen.data:
                seen.data += sock.recv(65536)
            del seen.data[:]
            coded = packed if kind == b"gzip" else f"before {SECRET} behind".encode()
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                + (b"Content-Encoding: gzip\r\n" if kind == b"gzip" else b"")
                + b"\r\n"
            )
            for byte in coded:
                sock.sendall(b"1\r\n" + bytes([byte]) + b"\r\n")
            sock.sendall(b"0\r\n\r\n")

    world = start(serve)
    connection = world.tls()
    for _ in range(2):
        connection.sendall(get(extra="Accept-Encoding: gzip\r\n"))
        answer = read_answer(connection)
        body = b"".join(answer.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
        assert body == b"before " + b"*" * len(SECRET) + b" behind"


def test_a_delay_tells_no_other_host_what_begins_a_value(start: Start) -> None:
    """A server that works with the sandbox sends guesses, and waits: what is held back would be a right one."""
    delivered = threading.Event()

    def serve(_: Seen, sock: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        if OTHER.encode() not in data:
            sock.sendall(OK)
            return
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + SECRET[:8].encode())
        delivered.wait(10)
        sock.sendall(SECRET.encode())

    world = start(serve)
    assert world.ask(get()).endswith(b"ok"), "the value is known from now on"
    connection = world.tls(OTHER)
    connection.settimeout(5)
    connection.sendall(get(host=OTHER))
    answer = b""
    while not answer.endswith(SECRET[:8].encode()):
        answer += connection.recv(65536)
    delivered.set()
    assert connection.recv(65536) == b"*" * len(SECRET), "whole, it is masked there too"


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/" + PLACEHOLDER, host=OTHER),
        get("/?q=" + "".join(f"%{byte:02x}" for byte in PLACEHOLDER.encode()), host=OTHER),
        get(host=OTHER, extra=f"X-Key: {PLACEHOLDER}\r\n"),
        get(
            host=OTHER,
            extra=f"Authorization: Basic {base64.b64encode(f'u:{PLACEHOLDER}'.encode()).decode()}\r\n",
        ),
        get(host=OTHER, method="POST", body=f'{{"k": "{PLACEHOLDER}"}}'.encode()),
        get(host=OTHER, method="POST", body=ESCAPED),
        get(
            host=OTHER,
            method="POST",
            extra="Content-Encoding: gzip\r\n",
            body=gzip.compress(PLACEHOLDER.encode()),
        ),
        get(host=OTHER, method="POST", body=base64.b64encode(b"xx" + PLACEHOLDER.encode() + b"yy")),
    ],
)
def test_id_5_a_placeholder_for_another_host_stops_the_request(start: Start, request_bytes: bytes) -> None:
    world = start()
    answer = world.ask(request_bytes, OTHER)
    assert b" 403 " in answer.split(b"\r\n")[0]
    assert b"which it is not bound to" in answer
    assert "placeholder" in (world.alarm().text or "")
    assert SECRET.encode() not in world.seen
    assert not world.seen.endswith(b"yy")


def test_id_5_over_tls_records(start: Start) -> None:
    world = start()
    connection = world.tls(OTHER)
    half = len(PLACEHOLDER) // 2
    connection.sendall(
        f"POST / HTTP/1.1\r\nHost: {OTHER}\r\nContent-Length: {len(PLACEHOLDER)}\r\n\r\n".encode()
    )
    connection.sendall(PLACEHOLDER[:half].encode())
    assert world.origin.accepted.acquire(timeout=10)
    connection.sendall(PLACEHOLDER[half:].encode())
    assert b" 403 " in read_answer(connection)
    world.alarm()


def test_id_11_nothing_over_cleartext(start: Start) -> None:
    world = start(grants=(rule(NAME),))
    sock = world.sandbox.dial_name(NAME, 80)
    sock.sendall(get(extra=f"Authorization: Bearer {PLACEHOLDER}\r\n"))
    assert b"without TLS" in read_all(sock)
    world.alarm()
    assert not world.origin.seen


@pytest.mark.parametrize("how", [{"trusted": False}, {"names": ("evil.example.net",)}])
def test_id_11_an_upstream_that_does_not_verify_gets_nothing(start: Start, how: dict[str, object]) -> None:
    world = start(**how)
    answer = world.ask(get())
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert f"the TLS handshake with {NAME} failed".encode() in answer
    assert not world.seen


def test_id_1_2_each_request_names_the_connections_host(start: Start) -> None:
    world = start(respond(OK, OK))
    connection = world.tls()
    connection.sendall(get())
    assert read_answer(connection).endswith(b"ok")
    connection.sendall(get(host=OTHER))
    assert b" 403 " in read_answer(connection)
    assert b"other.example.com" not in world.seen


def test_a_host_without_credentials_and_rules_is_not_decrypted(start: Start) -> None:
    world = start(names=(NAME, OTHER, FREE))
    sock = world.sandbox.dial_name(FREE, 443)
    with pytest.raises(ssl.SSLCertVerificationError):  # it is the origin's own certificate
        world.sandbox.trusting().wrap_socket(sock, server_hostname=FREE)


def test_rules_of_requests_hold_over_tls(start: Start) -> None:
    world = start(grants=(rule(NAME, methods=["GET"], paths=["/repos/acme/**"]),))
    assert world.ask(get("/repos/acme/widget")).startswith(b"HTTP/1.1 200 ")
    assert b" 403 " in world.ask(get("/repos/evil/x"))
    assert b" 403 " in world.ask(get("/repos/acme/../evil/x"))
    assert b" 403 " in world.ask(get("/repos/acme/widget", method="POST", body=b"x"))
    assert b" 403 " in world.ask(get("/repos/acme/widget", extra="X-HTTP-Method-Override: DELETE\r\n"))
    assert b" 403 " in world.ask(get("/repos/acme/widget?a=1&%5Fmethod=DELETE"))
    assert len(world.origin.seen) == 1


FORM, PARTS = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
JSON = "application/json"
FIELD = b'--x\r\nContent-Disposition: form-data; name="_method"\r\n\r\n%s\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b"a=1&_method=%s"),
        (FORM, b"a=" + b"x" * 200_000 + b"&_method=%s"),  # in several parts: it must not have been completed
        (PARTS, FIELD),
        (JSON, b'{"_method": "%s"}'),
    ],
)
def test_http_7_a_method_that_a_body_names_is_judged(start: Start, kind: str, body: bytes) -> None:
    world = start(respond(OK, OK, OK, OK), grants=(rule(NAME, methods=["POST", "PATCH"]),))
    extra = f"Content-Type: {kind}\r\n"
    refused = world.ask(get("/one", method="POST", body=body % b"DELETE", extra=extra))
    assert b" 403 " in refused or refused == b"", refused[:200]
    assert b"DELETE" not in world.seen, "what names it has not left"
    assert world.ask(get("/two", method="POST", body=body % b"PATCH", extra=extra)).startswith(
        b"HTTP/1.1 200 "
    )
    assert world.ask(get("/three", method="POST", body=body % b"POST", extra=extra)).startswith(
        b"HTTP/1.1 200 "
    )


def test_a_body_may_name_any_method_where_no_rule_has_any(start: Start) -> None:
    world = start(respond(OK))
    body, extra = b"_method=DELETE", f"Content-Type: {FORM}\r\n"
    assert world.ask(get("/one", method="POST", body=body, extra=extra)).startswith(b"HTTP/1.1 200 ")
    assert b"_method=DELETE" in world.seen


def test_replace_puts_the_value_where_the_placeholder_stands(start: Start) -> None:
    world = start(respond(OK, OK, OK), inject=REPLACE)
    world.ask(get(f"/p/{PLACEHOLDER}?q={PLACEHOLDER}", extra=f"X-Key: {PLACEHOLDER}\r\n"))
    quoted = SECRET.replace("/", "%2F").replace("+", "%2B")
    assert f"GET /p/{quoted}?q={quoted} HTTP/1.1".encode() in world.seen
    assert f"x-key: {SECRET}\r\n".encode() in world.seen


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        ("application/json", SECRET),
        ("application/x-www-form-urlencoded", SECRET.replace("/", "%2F").replace("+", "%2B")),
        ("text/plain", SECRET),
    ],
)
def test_replace_in_a_body_has_the_right_length(start: Start, kind: str, written: str) -> None:
    world = start(inject=REPLACE)
    body = f"a={PLACEHOLDER}&b={PLACEHOLDER[:-1]}".encode()
    assert world.ask(get(method="POST", extra=f"Content-Type: {kind}\r\n", body=body)).endswith(b"ok")
    sent = f"a={written}&b={PLACEHOLDER[:-1]}".encode()
    assert world.seen.endswith(b"\r\n\r\n" + sent)
    assert f"content-length: {len(sent)}\r\n".encode() in world.seen


def test_a_401_renews_the_credential_once_and_asks_again(start: Start, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = tmp_path / "source"
    script.write_text(f"#!/bin/sh\necho x >> {count}\necho token-number-$(wc -l < {count})\n")
    script.chmod(0o755)
    denied = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
    world = start(respond(denied), source=f"exec:{script}")
    world.ask(get())
    world.sandbox.log.wait(lambda event: event.kind == "request")
    tokens = [line for line in world.seen.split(b"\r\n") if line.startswith(b"authorization")]
    assert tokens[0] == b"authorization: Bearer token-number-1"
    assert len(tokens) <= 2


def test_a_source_that_fails_is_told_and_the_sandbox_lives(start: Start) -> None:
    world = start(source="env:CLOISTER_NOT_THERE")
    answer = world.ask(get())
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b'credential "api"' in answer
    assert world.ask(get()).startswith(b"HTTP/1.1 502 ")
    assert not world.origin.seen


def test_id_10_a_value_that_does_not_fit_is_never_sent(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_TEST_SECRET", "two\r\nX-Injected: lines")
    world = start()
    answer = world.ask(get())
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"Injected" not in answer + world.seen


def test_a_websocket_has_its_placeholder_replaced_and_its_echo_masked(start: Start) -> None:
    from tests.unit.gateway.test_http_end_to_end import ACCEPT, UPGRADE

    def serve(seen: Seen, sock: socket.socket) -> None:
        while b"\r\n\r\n" not in seen.data:
            seen.data += sock.recv(65536)
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
        )
        frame = sock.recv(65536)
        size = frame[1] & 127
        text = bytes(byte ^ frame[2 + at % 4] for at, byte in enumerate(frame[6 : 6 + size]))
        seen.data += text
        sock.sendall(b"\x81" + bytes([len(text)]) + text)
        sock.recv(10)

    world = start(serve, inject=REPLACE)
    connection = world.tls()
    connection.sendall(get(extra=UPGRADE))
    head = connection.recv(65536)
    assert head.startswith(b"HTTP/1.1 101 ")
    message = f"auth {PLACEHOLDER}".encode()
    connection.sendall(b"\x81" + bytes([0x80 | len(message)]) + b"\0\0\0\0" + message)
    assert connection.recv(65536)[2:] == b"auth " + b"*" * len(SECRET)
    assert world.seen.endswith(f"auth {SECRET}".encode())


def test_nothing_is_pushed_by_default_and_git_is_told_why(start: Start) -> None:
    world = start()
    answer = world.ask(get("/acme/widget.git/info/refs?service=git-receive-pack"))
    assert b"ERR cloister: nothing may be pushed from this sandbox" in answer
    assert not world.origin.seen


def test_a_push_is_judged_by_its_ref(start: Start) -> None:
    world = start(respond(OK), push=("refs/heads/agent/*",))
    zero, new = "0" * 40, "a" * 40

    def push(ref: str) -> bytes:
        line = f"{zero} {new} {ref}\0report-status side-band-64k\n".encode()
        body = b"%04x" % (len(line) + 4) + line + b"0000" + b"PACK\0\0\0\x02\0\0\0\0" + b"\0" * 20
        return world.ask(get("/acme/widget.git/git-receive-pack", method="POST", body=body))

    refused = push("refs/heads/main")
    assert b"ng refs/heads/main cloister: " in refused
    assert not world.origin.seen
    assert push("refs/heads/agent/one").endswith(b"ok")
    assert b"refs/heads/agent/one" in world.seen


def test_an_upload_of_64_mib_arrives_whole(start: Start) -> None:
    """AV-2."""
    size = 64 << 20

    def serve(seen: Seen, sock: socket.socket) -> None:
        left, head = None, b""
        while left is None or left > 0:
            data = sock.recv(1 << 18)
            if left is None:
                head += data
                if b"\r\n\r\n" in head:
                    left = size - len(head.partition(b"\r\n\r\n")[2])
            else:
                left -= len(data)
        seen.data += str(left).encode()
        sock.sendall(OK)

    world = start(serve)
    connection = world.tls()
    connection.sendall(f"PUT / HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {size}\r\n\r\n".encode())
    part = bytes(1 << 20)
    for _ in range(size >> 20):
        connection.sendall(part)
    assert read_answer(connection).endswith(b"ok")
    assert world.seen == b"0"


def test_the_first_event_of_a_stream_comes_at_once(start: Start) -> None:
    """AV-2: the origin sends the second only after the client has seen the first."""
    import threading

    first_seen = threading.Event()

    def serve(seen: Seen, sock: socket.socket) -> None:
        seen.data += sock.recv(65536)
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sock.sendall(b"9\r\ndata: 1\n\n\r\n")
        if first_seen.wait(10):
            sock.sendall(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    world = start(serve)
    connection = world.tls()
    connection.sendall(get())
    data = b""
    while b"data: 1\n\n" not in data:
        data += connection.recv(65536)
    first_seen.set()
    while b"data: 2\n\n" not in data:
        data += connection.recv(65536)


def test_a_head_whose_body_is_slow_is_seen_at_once(start: Start) -> None:
    import threading

    head_seen = threading.Event()

    def serve(seen: Seen, sock: socket.socket) -> None:
        seen.data += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        if head_seen.wait(10):
            sock.sendall(b"ok")

    world = start(serve)
    connection = world.tls()
    connection.sendall(get())
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head_seen.set()
    assert connection.recv(10) == b"ok"


def test_a_cut_answer_is_cut_for_the_client_too(start: Start) -> None:
    world = start(respond(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"))
    answer = world.ask(get())
    assert answer.endswith(b"<cut>")
    event = world.sandbox.log.wait(lambda event: event.kind == "request")
    assert (event.reason or "").startswith("cut short")


def test_http_5_a_bad_request_over_http_2_is_answered_and_written_down(start: Start) -> None:
    """It was reset without a word, and without a line."""
    world = start()
    context = world.sandbox.trusting()
    context.set_alpn_protocols(["h2"])
    client = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
    client.initiate_connection()
    path = "without-its-slash"
    client.send_headers(
        1, [(":method", "GET"), (":scheme", "https"), (":authority", NAME), (":path", path)], end_stream=True
    )
    with context.wrap_socket(world.sandbox.dial_name(NAME, 443), server_hostname=NAME) as connection:
        connection.sendall(client.data_to_send())
        answers: list[ResponseReceived] = []
        while not answers:
            data = connection.recv(65536)
            assert data
            answers += [one for one in client.receive_data(data) if isinstance(one, ResponseReceived)]
    assert dict(answers[0].headers or ())[b":status"] == b"400"
    refused = world.sandbox.log.wait(lambda event: event.kind == "refuse")
    assert refused.reason == "bad request: the path does not begin with /"
    assert not world.origin.seen
