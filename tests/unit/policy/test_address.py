"""The guard of upstream addresses: ATTACKS NAME-3, NAME-4 and NAME-5 at the judge."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.policy.address import parse_range, refusal
from cloister.policy.match import PatternError

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/addresses.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['address']} {case.get('ranges', '')}")
def test_addresses(case: dict[str, Any]) -> None:
    reason = refusal(case["address"], tuple(case.get("ranges", ())))
    if "refused" in case:
        assert reason is not None
        assert case["refused"] in reason
    else:
        assert reason is None


def test_guard_denies_by_default() -> None:
    assert refusal("not an address") == "the address cannot be read"


@given(st.text())
def test_any_text_gets_an_answer(text: str) -> None:
    assert refusal(text) is None or isinstance(refusal(text), str)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_whatever_python_calls_private_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    in_nat64 = address.version == 6 and address in ipaddress.ip_network("64:ff9b::/96")
    if not address.is_global and not in_nat64:
        # Python 3.11 calls some of 192.0.0.0/24 and 2001::/23 private that later ones do not: all are refused here.
        assert refusal(str(address)) is not None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.0.0.0", None),
        ("10.0.0.0/8", None),
        ("169.254.169.254/32", None),
        ("168.63.129.16", None),
        ("fd00::/8", None),
        ("10.0.0.1/8", "not a CIDR"),
        ("ten", "not a CIDR"),
        ("", "not a CIDR"),
        ("0.0.0.0/0", "never dialled"),
        ("::/0", "never dialled"),
        ("224.0.0.0/8", "never dialled"),
        ("::ffff:10.0.0.0/104", "never dialled"),
        ("8.8.8.8/32", "not wholly private"),
        ("10.0.0.0/7", "not wholly private"),
        ("2000::/8", "never dialled"),
    ],
)
def test_ranges_that_a_rule_may_name(text: str, why: str | None) -> None:
    if why is None:
        assert parse_range(text).num_addresses >= 1
    else:
        with pytest.raises(PatternError, match=why):
            parse_range(text)
