"""HTTP/1.1, both sides: one reading however the bytes come, and never another than h11 has.

h11 forgives more than we do; what both take for a message must be the same message.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import h11
from hypothesis import assume, given
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, rule

from cloister.errors import UntrustedInputError
from cloister.gateway.departures import Departures
from cloister.gateway.http import h1_server
from cloister.gateway.http.body import HOP_BY_HOP
from cloister.gateway.http.h1_client import H1Upstream
from cloister.gateway.http.h1_server import H1Downstream
from cloister.gateway.services import Deadlines
from cloister.gateway.upstream import UpstreamError
from cloister.messages import RequestHead, ResponseHead
from tests.fuzz.streams import CUTS, Fed, Parts, heard_alike, mutated, run

TRICKY = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b"\x0b", b"\x85", b"0\r\n\r\n", b"ffffffffffffffff\r\n",
    b"Content-Length: 5\r\n", b"content-length: 05\r\n", b"Content-Length: +5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding:\x0bchunked\r\n", b"Host: b\r\n", b"HTTP/1.0",
    b"Connection: close\r\n", b"Connection: content-length\r\n", b";a=b", b"5", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
)  # fmt: skip
FRAMED = (
    b"", b"Content-Length: 5\r\n\r\nhello", b"Content-Length: 0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
)  # fmt: skip
HEADERS = (
    b"Accept: */*\r\n",
    b"X-A:  b \r\n",
    b"Cookie: a=b; c\r\n",
    b"X-Empty:\r\n",
    b"x-\xe9: y\r\n",
    b"X-B: \xe9\r\n",
)

ODD = (
    b"Content-Length: 5\r\n", b"Content-Length: 3\r\n", b"Content-Length: 5, 5\r\n", b"content-length: 05\r\n",
    b"Content-Length: +5\r\n", b"Content-Length : 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
    b"Transfer-Encoding: chunked;q=1\r\n", b"X-A: b\nContent-Length: 5\r\n", b"X-A: b\r\n folded\r\n", b"Host: b\r\n",
    b"X-A: b\rc\r\n", b"Connection: close\r\n", b"Connection: content-length\r\n", b": x\r\n", b"no colon\r\n",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Message:
    """What was understood. `first` is the request line's or the status's; `ended`: the body was whole."""

    first: tuple[str, ...]
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def _requests(headers: Sequence[bytes] = HEADERS) -> some.SearchStrategy[bytes]:
    target = some.sampled_from([b"/", b"/a?b=c", b"/%2e%2e/x", b"http://a/b", b"//x", b"/\xc3\xa9"])
    one = some.builds(
        lambda method, target, headers, framed: (
            method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n" + b"".join(headers) + (framed or b"\r\n")
        ),
        some.sampled_from([b"GET", b"POST", b"PUT", b"HEAD", b"PROPFIND"]),
        target,
        some.lists(some.sampled_from(headers), max_size=3),
        some.sampled_from(FRAMED),
    )
    return some.lists(one, min_size=1, max_size=3).map(b"".join)


def _responses(headers: Sequence[bytes] = HEADERS) -> some.SearchStrategy[bytes]:
    return some.builds(
        lambda interim, status, headers, framed: (
            interim + b"HTTP/1.1 " + status + b"\r\n" + b"".join(headers) + (framed or b"\r\nuntil the end")
        ),
        some.sampled_from([b"", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]),
        some.sampled_from([b"200 OK", b"204 No Content", b"304 Not", b"500 ", b"404"]),
        some.lists(some.sampled_from(headers), max_size=3),
        some.sampled_from(FRAMED),
    )


def served(parts: Parts) -> list[Message]:
    """The requests that our server takes from these bytes as whole."""
    messages: list[Message] = []

    async def handler(down: H1Downstream) -> None:
        body = b""
        await down.send_continue()
        while part := await down.read():
            body += part
        messages.append(
            Message(
                first=(down.request.method, down.request.target),
                headers=tuple(pair for pair in down.request.headers if pair[0] != b"te"),
                body=body,
            )
        )
        await down.send_head(ResponseHead(status=200, length=0), ended=True)

    async def refuse(reason: str, _: int) -> bytes:
        assert reason.isprintable()
        return b""

    async def main() -> None:
        try:
            with closing(Departures()) as departures:
                await h1_server.serve(
                    Fed(parts),
                    handler,  # type: ignore[arg-type]  # it looks at more than a Downstream has
                    deadlines=Deadlines(),
                    departures=departures,
                    on_bad_request=refuse,
                )
        except UntrustedInputError as error:
            assert str(error).isprintable()

    run(main())
    return messages


def answered(parts: Parts, method: str = "GET") -> list[Message]:
    """The response that our client takes from these bytes, if it is whole."""

    async def main() -> list[Message]:
        upstream = H1Upstream(Fed(parts), address="a", reused=False, on_release=lambda _: None)
        await upstream.send_head(RequestHead(method=method, untrusted_authority="a", path="/"), ended=True)

        async def on_continue() -> None:
            return

        try:
            head = await upstream.response(on_continue)
            body = b""
            while part := await upstream.read():
                body += part
        except UpstreamError as error:
            assert error.reason.isprintable()
            return []
        return [Message(first=(str(head.status),), headers=head.headers, body=body)]

    return run(main())


def h11_requests(data: bytes) -> list[Message]:
    """The requests that h11 takes from these bytes as whole."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    connection.receive_data(b"")
    messages: list[Message] = []
    head: h11.Request | None = None
    body = b""
    try:
        while True:
            match connection.next_event():
                case h11.Request() as head:
                    body = b""
                case h11.Data(data=part):
                    body += bytes(part)
                case h11.EndOfMessage() if head is not None:
                    first = (head.method.decode(), head.target.decode("latin-1"))
                    messages.append(Message(first=first, headers=_end_to_end(list(head.headers)), body=body))
                    connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is h11.MUST_CLOSE:
                        return messages
                    connection.start_next_cycle()
                case _:
                    return messages
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return messages


def h11_response(data: bytes) -> list[Message]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    head: h11.Response | None = None
    body = b""
    try:
        while True:
            match connection.next_event():
                case h11.Response() as head:
                    pass
                case h11.Data(data=part):
                    body += bytes(part)
                case h11.EndOfMessage() if head is not None:
                    first = (str(head.status_code),)
                    return [Message(first=first, headers=_end_to_end(list(head.headers)), body=body)]
                case h11.InformationalResponse():
                    pass
                case _:
                    return []
    except h11.RemoteProtocolError:
        return []


def _end_to_end(headers: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    lines = b",".join(value for name, value in headers if name in (b"connection", b"proxy-connection"))
    named = {token.strip(b" \t").lower() for token in lines.split(b",")}
    return tuple((name, value) for name, value in headers if name not in HOP_BY_HOP and name not in named)


def _same_target(one: Message, other: Message) -> bool:
    """An absolute target is told apart here, and given whole by h11."""
    return one.first == other.first or other.first[-1].removeprefix("http://a") in (one.first[-1], "")


@given(mutated(_requests(HEADERS + ODD), TRICKY), CUTS)
def test_requests_have_one_reading(data: bytes, cuts: list[int]) -> None:
    heard, other = heard_alike(served, data, cuts), h11_requests(data)
    assert len(heard) <= len(other)
    for ours, theirs in zip(heard, other, strict=False):
        assert (ours.headers, ours.body) == (theirs.headers, theirs.body)
        assert _same_target(ours, theirs)


@given(_requests())
def test_control_what_is_well_formed_is_understood(data: bytes) -> None:
    assume(b"\xc3" not in data and b"x-\xe9" not in data)
    assert len(served([data])) == len(h11_requests(data)) > 0


@given(_requests(), some.binary(min_size=1, max_size=60))
def test_junk_behind_a_request_changes_nothing_before_it(data: bytes, junk: bytes) -> None:
    whole = served([data])
    assert served([data + junk])[: len(whole)] == whole


@given(mutated(_responses(HEADERS + ODD), TRICKY), CUTS)
def test_responses_have_one_reading(data: bytes, cuts: list[int]) -> None:
    ours, theirs = heard_alike(answered, data, cuts), h11_response(data)
    assert not ours or ours == theirs


@given(some.binary(max_size=400), CUTS)
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    heard_alike(served, data, cuts)
    heard_alike(answered, data, cuts)


class Conversation(RuleBasedStateMachine):
    """Our client's side writes requests, our server's side reads them, in pieces that have nothing to do with them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Message] = []
        self.waiting = b""
        self.parts: Parts = []

    @rule(
        method=some.sampled_from(["GET", "POST", "DELETE"]),
        path=some.sampled_from(["/", "/a/b", "/%41"]),
        query=some.sampled_from([None, "", "a=b&c"]),
        headers=some.lists(
            some.sampled_from([(b"accept", b"*/*"), (b"x-a", b""), (b"x-a", b"\xe9 b")]), max_size=3
        ),
        body=some.lists(some.binary(min_size=1, max_size=40), max_size=3),
        chunked=some.booleans(),
    )
    def ask(
        self,
        method: str,
        path: str,
        query: str | None,
        headers: list[tuple[bytes, bytes]],
        body: Parts,
        *,
        chunked: bool,
    ) -> None:
        whole = b"".join(body)
        length = None if chunked and body else len(whole)
        head = RequestHead(
            method=method,
            untrusted_authority="a",
            path=path,
            query=query,
            headers=tuple(headers),
            length=length,
        )
        wire = Fed([])

        async def write() -> None:
            upstream = H1Upstream(wire, address="a", reused=False, on_release=lambda _: None)
            await upstream.send_head(head, ended=not body)
            for part in body:
                await upstream.write(part)
            if body:
                await upstream.finish()

        run(write())
        self.waiting += bytes(wire.sent)
        self.asked.append(Message(first=(method, head.target), headers=head.headers, body=whole))

    @rule(count=some.integers(min_value=1, max_value=200))
    def deliver(self, count: int) -> None:
        self.parts.append(self.waiting[:count])
        self.waiting = self.waiting[count:]
        heard = served(self.parts)
        assert heard == self.asked[: len(heard)]

    def teardown(self) -> None:
        assert served([*self.parts, self.waiting]) == self.asked


TestConversation = Conversation.TestCase
