"""Who is slow, who leaves, what is large: nobody else must feel it (AV-1, AV-2)."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable

from cloister.verify.inside.talk import (
    Probe,
    RefusedError,
    answer,
    asked,
    connected,
    dial,
    fetch,
    get,
    name,
    post,
    probe,
    resolve,
    sized,
    whole,
)

_SLOW = 60
_SLOW_TLS = 12
_LIMIT_S = 2.5  # far above what an answer takes, and below what a probe waits
_BESIDE_S = 6.0  # who is not served by then is held up
_LONG_S = 60.0
_UPLOAD = 4 << 20
_UPLOAD_S = 20.0


@probe("AV-1")
def slow_ones(found: Probe) -> None:
    bound = name("bound")
    found.control("a request while nobody is slow", lambda: fetch(bound, "/control-AV-1"))

    def took_s() -> float:
        """How long a request takes now; as long as a probe waits if it gets no answer."""
        begun = time.monotonic()
        try:
            with connected(bound, wait_s=_BESIDE_S) as stream:
                asked(stream, get("/control-AV-1-beside", bound))
        except (OSError, EOFError, RefusedError):
            return _LONG_S
        return time.monotonic() - begun

    def held_up(opening: Callable[[], socket.socket], count: int) -> str:
        """Whether others wait while many of these are open; a late answer may once be this machine's fault."""
        limit_s = max(_LIMIT_S, 10 * took_s())
        slow: list[socket.socket] = []
        try:
            try:
                for _ in range(count):
                    slow.append(opening())
            except OSError as error:
                return f"number {len(slow) + 1} of them is not served: {error}"
            times_s = [took_s()]
            if limit_s < times_s[0] < _LONG_S:
                times_s.append(took_s())
        finally:
            for one in slow:
                one.close()
        if min(times_s) > limit_s:
            return f"a request beside them took {min(times_s):.1f} s"
        raise RefusedError(f"a request beside them took {min(times_s) * 1000:.0f} ms")

    def hello_begun() -> socket.socket:
        return begun_with(dial(resolve(bound), 443), b"\x16\3\1\2")

    def head_begun() -> socket.socket:
        return begun_with(dial("127.0.0.1", 3128), b"GET http://")

    def head_begun_in_tls() -> socket.socket:
        return begun_with(connected(bound, wait_s=_BESIDE_S), b"GET / HT")

    def answer_waits() -> socket.socket:
        return begun_with(connected(bound, wait_s=_BESIDE_S), get("/hang", bound))

    def body_waits() -> socket.socket:
        return begun_with(
            connected(name("judged"), wait_s=_BESIDE_S),
            sized(name("judged"), "/hash", b"half").replace(b": 4", b": 90"),
        )

    def answer_unread() -> socket.socket:
        return begun_with(connected(bound, wait_s=_BESIDE_S), get("/large", bound))

    for count, what, opening in (
        (_SLOW, "clients that never end their hello", hello_begun),
        (_SLOW, "clients that never end their head", head_begun),
        (_SLOW_TLS, "clients that never end their head, in TLS", head_begun_in_tls),
        (_SLOW_TLS, "clients that never end their body", body_waits),
        (_SLOW_TLS, "clients that do not read", answer_unread),
        (_SLOW_TLS, "upstreams that never answer", answer_waits),
    ):
        found.attack(f"{count} {what}", held_up, opening, count)


def begun_with(stream: socket.socket, data: bytes) -> socket.socket:
    stream.sendall(data)
    return stream


@probe("AV-2")
def streams(found: Probe) -> None:
    bound, judged = name("bound"), name("judged")

    def late() -> str:
        """Whether the first event waits for what comes behind it, which is nothing for long."""
        with connected(bound) as stream:
            stream.sendall(get("/events", bound))
            begun, data = time.monotonic(), b""
            try:
                while b"data: first" not in data:
                    part = stream.recv(65536)
                    if not part:
                        raise EOFError("closed before the event")
                    data += part
            except OSError:  # the time is up
                return "it did not come"
        raise RefusedError(f"it came after {(time.monotonic() - begun) * 1000:.0f} ms")

    def uploaded() -> str:
        body = bytes(range(256)) * (_UPLOAD >> 8)
        with connected(judged) as stream:
            stream.settimeout(_UPLOAD_S)
            stream.sendall(sized(judged, "/hash", body))
            told = answer(stream)[1].rpartition(b"\r\n\r\n")[2].decode()
        if told != f"{len(body)} {hashlib.sha256(body).hexdigest()}":
            raise RefusedError(f"the origin got {told}")
        return told[:20]

    found.control(f"{_UPLOAD >> 20} MiB arrive as they were sent", uploaded)
    found.control("a request", lambda: fetch(bound, "/control-AV-2"))
    found.attack("keep the first event of a stream back", late)

    def left(request: bytes) -> str:
        """A client that leaves within its request: whether the gateway ends it as if it were whole."""
        with connected(judged) as stream:
            stream.sendall(request)
        got = whole(bound, get("/control-AV-2-after", bound, "Connection: close"))
        if not got.startswith(b"HTTP/1.1 200 "):
            return "a request after that is not answered"
        raise RefusedError("it is over")

    found.attack(
        "a client leaves within its body", left, post(judged, "/cut-AV-2", "Content-Length: 99", "half")
    )
    found.attack(
        "a client leaves within its chunks",
        left,
        post(judged, "/cut-AV-2", "Transfer-Encoding: chunked", "4\r\nhalf"),
    )
    found.attack("a client leaves within an answer", left, get("/large", judged))

    def broken_off() -> str:
        got = whole(bound, get("/shorter", bound, "Connection: close"))
        if got.endswith(b"only this") and b"Content-Length: 9\r\n" in got.title():
            return "what was cut looks whole"
        raise RefusedError(f"cut after {len(got)} bytes")

    found.attack("an upstream that leaves within its answer", broken_off)
