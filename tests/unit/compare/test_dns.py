"""The laboratory's DNS, byte by byte."""

from __future__ import annotations

import struct

from compare.dns import addresses, reply

from cloister.verify.inside.egress import packet

FIND = addresses({"open.zone.test": ["192.0.2.1"]}, "zone.test", "192.0.2.66")


def code_and_count(answer: bytes) -> tuple[int, int]:
    return answer[3] & 15, struct.unpack(">H", answer[6:8])[0]


def test_a_name_that_is_known_has_its_address() -> None:
    name, answer = reply(packet("Open.Zone.test", 1), FIND)
    assert name == "open.zone.test"
    assert code_and_count(answer) == (0, 1)
    assert answer.endswith(bytes([192, 0, 2, 1]))
    assert answer[:2] == packet("x", 1)[:2]


def test_an_address_may_be_another_one_each_time() -> None:
    find = addresses({"a.zone.test": ["192.0.2.1", "192.0.2.2"]}, "zone.test", "192.0.2.66")
    assert [find("a.zone.test") for _ in range(3)] == ["192.0.2.1", "192.0.2.2", "192.0.2.1"]


def test_look_alikes_and_subdomains_lead_to_the_attacker() -> None:
    for name in ("xopen.zone.test", "secret.open.zone.test", "zone.test", "evilzone.test"):
        assert reply(packet(name, 1), FIND)[1].endswith(bytes([192, 0, 2, 66])), name


def test_other_types_have_no_answer_and_other_names_do_not_exist() -> None:
    assert code_and_count(reply(packet("open.zone.test", 28), FIND)[1]) == (0, 0)
    assert code_and_count(reply(packet("example.org", 1), FIND)[1]) == (3, 0)
