"""DNS: the codec with any bytes, and the resolver's answers."""

from __future__ import annotations

import socket
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import UntrustedInputError
from cloister.gateway import dns
from cloister.gateway.names import NameTable
from cloister.gateway.record import DNS_PAIRS_LIMIT, Record
from cloister.gateway.resolver import Resolver
from cloister.network import standin
from cloister.policy.codec import parse_policy
from cloister.types import Host
from tests.unit.gateway.harness import FakeLog, plan, question, rule

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/dns.toml").read_text())["case"]
POLICY = parse_policy(
    plan(rule("ok.example.com"), rule("wild.example.com", reach="subdomains"))["policy"],
)


def _resolver(log: FakeLog | None = None, *, v6: bool = True, limit: int = 8192) -> Resolver:
    names = NameTable(pattern_names_limit=limit)
    return Resolver(policy=POLICY, names=names, record=Record(log or FakeLog()), v6=v6)


def _ask(resolver: Resolver, message: bytes) -> bytes:
    answer = resolver.judge(message)
    assert answer is not None
    return answer.data


@pytest.mark.parametrize("edns", [False, True])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: dict[str, object], edns: bool) -> None:
    message = question(
        str(case["question"]),
        int(str(case["kind"])),
        edns=edns,
        klass=int(str(case.get("klass", 1))),
        flags=int(str(case.get("flags", 0x0100))),
    )
    log = FakeLog()
    answer = _resolver(log).judge(message)
    if case.get("silent"):
        assert answer is None
        assert log.refusal().reason
        return
    assert answer is not None
    data = answer.data
    asked = message[12:-11] if edns else message[12:]
    assert data[:2] == message[:2]
    assert data[12 : 12 + len(asked)] == asked
    assert data[3] & 15 == case["rcode"]
    assert len(data) <= 512
    rest = data[12 + len(asked) :]
    expected = {
        "v4": socket.inet_aton(standin.v4(standin.FIRST_INDEX)),
        "v6": socket.inet_pton(socket.AF_INET6, standin.v6(standin.FIRST_INDEX)),
        "loopback": socket.inet_aton("127.0.0.1"),
        "": b"",
    }[str(case["address"])]
    assert int.from_bytes(data[6:8], "big") == bool(expected)
    assert rest[12 : 12 + len(expected)] == expected
    if case["rcode"]:
        assert log.refusal().via == "dns"
        assert (b"refused by cloister" in rest) == edns


def test_denies_by_default() -> None:
    resolver = Resolver(policy=parse_policy(plan()["policy"]), names=NameTable(), record=Record(FakeLog()))
    assert _ask(resolver, question("ok.example.com"))[3] & 15 == dns.NXDOMAIN


def test_without_v6_there_are_no_aaaa_records() -> None:
    answer = _ask(_resolver(v6=False), question("ok.example.com", dns.AAAA))
    assert (answer[3] & 15, answer[7]) == (dns.NOERROR, 0)


def test_a_name_keeps_its_address_and_its_twin() -> None:
    resolver = _resolver()
    first = _ask(resolver, question("ok.example.com"))[-4:]
    other = _ask(resolver, question("a.wild.example.com"))[-4:]
    assert first != other
    assert _ask(resolver, question("OK.example.com."))[-4:] == first
    assert _ask(resolver, question("ok.example.com", dns.AAAA))[-1] == first[-1]


def test_invented_names_cannot_exhaust_memory_nor_crowd_out_exact_ones() -> None:
    log = FakeLog()
    resolver = _resolver(log, limit=3)
    codes = [_ask(resolver, question(f"n{number}.wild.example.com"))[3] & 15 for number in range(5)]
    assert codes == [0, 0, 0, 3, 3]
    assert "more than" in (log.refusal().reason or "")
    assert _ask(resolver, question("ok.example.com"))[3] & 15 == 0


def test_a_flood_of_questions_writes_a_bounded_number_of_lines() -> None:
    log = FakeLog()
    record = Record(log)
    for number in range(DNS_PAIRS_LIMIT + 1000):
        record.dns(f"x{number}.evil.com", rule=None, reason="no rule", allowed=False)
        record.dns(f"x{number}.evil.com", rule=None, reason="no rule", allowed=False)
    record.close()
    assert len(log.events) <= DNS_PAIRS_LIMIT + 6
    assert log.events[-1].reason is not None
    assert log.events[-1].reason.startswith("2000 more")


def test_bound_names_own_the_first_indexes() -> None:
    names = NameTable([Host("db.example.com"), Host("mail.example.com")])
    assert names.host(standin.v4(standin.FIRST_INDEX + 1)) == Host("mail.example.com")
    assert names.host(standin.v6(standin.FIRST_INDEX)) == Host("db.example.com")
    assert names.host(standin.v4(standin.LOOPBACK_INDEX)) is None
    assert names.host("8.8.8.8") is None


@pytest.mark.parametrize("cut", range(len(question("ok.example.com", edns=True))))
def test_every_truncation_is_refused(cut: int) -> None:
    with pytest.raises(UntrustedInputError):
        dns.parse(question("ok.example.com", edns=True)[:cut])


@pytest.mark.parametrize("edns", [False, True])
def test_trailing_junk_is_refused(edns: bool) -> None:
    with pytest.raises(UntrustedInputError):
        dns.parse(question("ok.example.com", edns=edns) + b"x")


@pytest.mark.parametrize(
    "label",
    [b"\xc0\x0c", b"\x05a.b.c", b"\x03a\x00b", b"\x03a\rb", b"\x02\xc3\xa4", b"\x80aaa", b"?" + b"a" * 63],
)
def test_bad_labels_are_refused(label: bytes) -> None:
    name = label * 5 if label[0] == 0x3F else label
    message = b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0" + name + b"\0\0\1\0\1"
    with pytest.raises(UntrustedInputError):
        dns.parse(message)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_raise_nothing_else(untrusted: bytes, behind_a_header: bool) -> None:
    message = question("a")[:12] + untrusted if behind_a_header else untrusted
    try:
        query = dns.parse(message)
    except UntrustedInputError:
        return
    assert len(dns.refusal(query, code=3, reason="x" * 500)) <= 512
    assert _resolver().judge(message) is not None
