"""What opens a connection, and what asks for a name: one reading however it is cut, and none for what is bent."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from cloister.errors import UntrustedInputError
from cloister.gateway import clienthello, dns
from cloister.gateway.clienthello import ClientHello
from cloister.gateway.dns_server import DnsServer
from cloister.gateway.names import NameTable
from cloister.gateway.record import Record
from cloister.gateway.resolver import Resolver
from cloister.policy.codec import parse_policy
from tests.fuzz.streams import CUTS, Fed, Parts, heard_alike, mutated, run
from tests.unit.gateway.harness import FakeLog, plan, question, rule
from tests.unit.gateway.test_clienthello import build, hello, record, sni

OFFSETS = some.lists(some.integers(min_value=1, max_value=400), max_size=5)
HELLOS = some.sampled_from(
    [
        hello("h.example.com", alpn=["h2", "http/1.1"]),
        build(extensions=[sni(b"h.example.com"), (16, b"\0\x03\x02h2")]),
        build(extensions=[sni(b"h.example.com"), (0xFE0D, b"x")]),
        build(),
    ]
)
HELLO_PIECES = (b"\0\0", b"\xff\xff", b"\x16\x03\x01\0\x01\x01", b"\0\0\0\x12\0\x10", b"evil.example")
QUESTIONS = some.builds(
    question,
    some.sampled_from(
        [
            "ok.example.com",
            "a.wild.example.com",
            "evil.com",
            "OK.Example.COM.",
            "localhost",
            "",
            "a" * 64 + ".wild.example.com",
        ]
    ),
    some.sampled_from([dns.A, dns.AAAA, dns.ANY, 16, 252, 65]),
    edns=some.booleans(),
    klass=some.sampled_from([1, 3, 255]),
    flags=some.sampled_from([0x0100, 0x2800, 0x8180]),
)
DNS_PIECES = (b"\xc0\x0c", b"\0", b"\x3f", b"\x40" + b"a" * 64, b"\0\1\0\1", b"\0\0\x29\x04\xd0\0\0\0\0\0\0")


def _parsed(untrusted: bytes) -> ClientHello | str | None:
    """The hello, None if more is needed, or "refused"."""
    try:
        return clienthello.parse(untrusted)
    except UntrustedInputError as error:
        assert str(error).isprintable()
        return "refused"


def _in_records(handshake: bytes, edges: list[int]) -> bytes:
    at = sorted({edge for edge in edges if edge < len(handshake)} | {0, len(handshake)})
    return b"".join(record(handshake[a:b]) for a, b in pairwise(at))


@given(mutated(HELLOS, HELLO_PIECES), some.binary(max_size=20))
def test_a_hello_says_the_same_as_it_grows(data: bytes, junk: bytes) -> None:
    """Once there is an answer, no later byte changes it: a hello is judged when it is there."""
    answers = [_parsed(data[:size]) for size in range(len(data) + 1)]
    final = answers[-1]
    first = next((number for number, answer in enumerate(answers) if answer is not None), len(answers))
    assert all(answer == final for answer in answers[first:])
    if isinstance(final, ClientHello):
        assert final.length == first
        if (name := final.untrusted_server_name) is not None and data[3:5] == (first - 5).to_bytes(2, "big"):
            assert len(name).to_bytes(2, "big") + name.encode() in data  # all of it, and no more
        assert _parsed(data + junk) == final


@given(HELLOS, some.binary(min_size=1, max_size=20))
def test_nothing_follows_a_hello_in_its_record(data: bytes, junk: bytes) -> None:
    assert _parsed(record(data[5:] + junk)) == "refused"


@given(mutated(HELLOS.map(lambda data: data[5:]), HELLO_PIECES), OFFSETS)
def test_records_are_no_part_of_what_a_hello_says(handshake: bytes, edges: list[int]) -> None:
    whole, parts = _parsed(record(handshake)), _parsed(_in_records(handshake, edges))
    if isinstance(parts, ClientHello) and isinstance(whole, ClientHello):
        assert (parts.untrusted_server_name, parts.alpn) == (whole.untrusted_server_name, whole.alpn)
        assert parts.encrypted == whole.encrypted
    else:  # what follows the hello in a record of its own is somebody else's
        assert whole in (parts, "refused")


@given(
    some.lists(some.tuples(some.sampled_from([20, 23]), some.binary(max_size=40)), max_size=3),
    mutated(HELLOS, HELLO_PIECES),
)
def test_a_second_hello_is_the_one_behind_what_is_skipped(
    before: list[tuple[int, bytes]], data: bytes
) -> None:
    skipped = b"".join(record(body, kind=kind) for kind, body in before)
    if data[:1] in (b"\x14", b"\x17"):
        return
    alone = _parsed(data)
    try:
        found = clienthello.parse_second(skipped + data)
    except UntrustedInputError:
        assert alone == "refused"
        return
    assert (found is None) == (alone is None)
    if isinstance(alone, ClientHello) and found is not None:
        assert found.length == len(skipped) + alone.length
        assert found.untrusted_server_name == alone.untrusted_server_name


@given(
    mutated(
        some.just(record(b"\x02\0\0\x28\x03\x03" + bytes(32) + b"\0\x13\x01\0\0\0")),
        (clienthello._RETRY_RANDOM,),
    )
)
def test_a_retry_is_seen_or_not_once_there_is_enough(flight: bytes) -> None:
    answers = [clienthello.retry_requested(flight[:size]) for size in range(len(flight) + 1)]
    first = next((number for number, answer in enumerate(answers) if answer is not None), len(answers))
    assert len(set(answers[first:])) <= 1


def _resolver() -> Resolver:
    policy = parse_policy(
        plan(rule("ok.example.com"), rule("wild.example.com", reach="subdomains"))["policy"]
    )
    return Resolver(policy=policy, names=NameTable(), record=Record(FakeLog()))


@given(mutated(QUESTIONS, DNS_PIECES))
def test_an_answer_belongs_to_its_question(message: bytes) -> None:
    resolver = _resolver()
    answer = resolver.judge(message)
    if answer is None:
        return
    data, asked = answer.data, answer.query.question
    identity, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", data)
    assert len(data) <= 512
    assert data[12 : 12 + len(asked)] == asked == message[12 : 12 + len(asked)]
    assert identity == int.from_bytes(message[:2], "big")
    assert flags & 0x8000
    assert len(message) - 12 - len(asked) >= (11 if answer.query.edns else 0)
    assert answer.query.edns or len(message) == 12 + len(asked)
    assert all(len(label) <= 63 for label in answer.query.untrusted_name.split("."))
    assert (questions, authorities) == (1, 0)
    assert additional == answer.query.edns
    if answers:
        at = 12 + len(asked)
        _, kind, klass, _, size = struct.unpack_from("!3HIH", data, at)
        assert (kind, klass) == (answer.query.kind, dns.IN)
        assert size == {dns.A: 4, dns.AAAA: 16}[kind]
        name = answer.query.untrusted_name.lower().removesuffix(".")
        assert name == "ok.example.com" or name.endswith((".wild.example.com", "localhost"))


class _Unbound:
    """A binder of sockets to which nothing is bound, and which has nothing to do."""

    async def bind(self, *_: object) -> None:
        return


@given(some.lists(mutated(QUESTIONS, DNS_PIECES), max_size=3), some.binary(max_size=6), CUTS)
def test_questions_over_tcp_are_answered_alike(messages: list[bytes], junk: bytes, cuts: list[int]) -> None:
    def answered(parts: Parts) -> bytes:
        wire = Fed(parts)
        server = DnsServer(_resolver(), _Unbound())  # type: ignore[arg-type]  # it asks for nothing else
        run(server.serve_tcp(wire))  # type: ignore[arg-type]  # any wire will do
        return bytes(wire.sent)

    data = b"".join(len(message).to_bytes(2, "big") + message for message in messages)
    whole = heard_alike(answered, data, cuts)
    assert answered([data + junk]).startswith(whole)
