"""A peer's cell: what was seen decides, and what the data excuse is said."""

from __future__ import annotations

import pytest
from compare.judge import Cell, Described, Finding, Observed, judged, strayed

from cloister.verify.overlay import NAMES
from cloister.verify.verdict import EXEC, FIRST, Attempt, Told

SECRET = "cvr-" + "0" * 32
ABOUT = Described(title="a peer", what="for a test")
GOOD = Attempt(what="the control", succeeded=True, got="200")
BAD = Attempt(what="the control", succeeded=False, got="timed out")
REFUSED = Attempt(what="the attack", succeeded=False, got="403")
PASSED = Attempt(what="the attack", succeeded=True, got="200")
HELD = Told(attacks=(REFUSED,), controls=(GOOD,))


def cell(
    name: str,
    told: Told | None,
    about: Described = ABOUT,
    *,
    seen: bytes = b"",
    at: str = "bound",
    **more: object,
) -> Cell:
    by_pass = {FIRST: {name: told} if told is not None else {}}
    arrived = [(NAMES[at], seen)]
    observed = Observed(**{"arrived": arrived, "secret": SECRET, "told": by_pass, **more})  # type: ignore[arg-type]  # of a case
    return judged([name], about, observed)[name]


def test_held_needs_an_attack_that_was_refused_and_a_control_that_was_not() -> None:
    assert cell("NET-1", HELD).finding is Finding.HELD
    assert cell("NET-1", Told(attacks=(REFUSED,), controls=(BAD,))).finding is Finding.CONTROL_FAILED
    assert cell("NET-1", Told(attacks=(REFUSED,))).finding is Finding.CONTROL_FAILED


def test_nothing_is_held_by_absence() -> None:
    assert cell("NET-1", None).finding is Finding.CONTROL_FAILED


def test_a_control_that_the_origin_has_not_seen_shows_nothing() -> None:
    sends = frozenset({"NET-1"})
    assert cell("NET-1", HELD, controls=sends).finding is Finding.CONTROL_FAILED
    assert cell("NET-1", HELD, controls=sends, seen=b"GET /control-NET-1-direct").finding is Finding.HELD


def test_what_the_origin_saw_is_a_breach_whatever_the_sandbox_tells() -> None:
    found = cell("NET-1", HELD, seen=b"GET /attack-NET-1-direct HTTP/1.1")
    assert found.finding is Finding.BREACHED
    assert found.evidence[0] == "seen outside: attack-NET-1"


def test_what_is_not_offered_is_not_tried_and_says_why() -> None:
    about = Described(title="", what="", not_offered={"NET-1": "it has none"})
    assert cell("NET-1", None, about) == Cell(finding=Finding.NOT_OFFERED, reason="it has none")


def test_an_attack_that_is_excused_is_told_of_and_no_other_is() -> None:
    about = Described(title="", what="", no_breach={("NET-1", "the attack"): "it leads nowhere"})
    both = Told(attacks=(PASSED, Attempt(what="another", succeeded=True, got="200")), controls=(GOOD,))
    alone = cell("NET-1", Told(attacks=(PASSED,), controls=(GOOD,)), about, seen=b"attack-NET-1")
    assert alone.finding is Finding.HELD
    assert alone.notes == ("NET-1: 'the attack' passed, and is no breach: it leads nowhere",)
    assert (alone.passed, alone.tried) == (0, 1)
    breached = cell("NET-1", both, about)
    assert breached.finding is Finding.BREACHED
    assert (breached.passed, breached.tried) == (1, 2)
    unexcused = Told(attacks=(PASSED, REFUSED), controls=(GOOD,))
    assert cell("NET-1", unexcused).finding is Finding.BREACHED


def test_an_excuse_that_was_not_needed_excuses_no_mark() -> None:
    about = Described(title="", what="", no_breach={("NET-1", "the attack"): "it leads nowhere"})
    assert cell("NET-1", HELD, about, seen=b"attack-NET-1").finding is Finding.BREACHED
    assert cell("NET-1", HELD, about).notes == ()


def test_a_control_that_cannot_be_is_told_of() -> None:
    about = Described(title="", what="", no_control={("K-5", "the control"): "no socket at all"})
    found = cell("K-5", Told(attacks=(REFUSED,), controls=(BAD,)), about)
    assert found.finding is Finding.HELD
    assert found.notes == ("K-5: 'the control' failed, and had to: no socket at all",)
    other = Attempt(what="another control", succeeded=False, got="")
    assert (
        cell("K-5", Told(attacks=(REFUSED,), controls=(BAD, other)), about).finding is Finding.CONTROL_FAILED
    )
    assert cell("K-5", Told(attacks=(REFUSED,)), about).finding is Finding.CONTROL_FAILED


@pytest.mark.parametrize("name", ["ID-5", "ID-6", "ID-11"])
def test_a_placeholder_that_is_passed_on_is_no_breach_and_its_value_is(name: str) -> None:
    told = Told(attacks=(PASSED,), controls=(GOOD,))
    sent = f"GET /attack-{name}-header HTTP/1.1\r\nHost: x\r\nX-Token: %s\r\n\r\n"
    assert cell(name, told, seen=(sent % "a-placeholder").encode(), at="judged").finding is Finding.HELD
    found = cell(name, told, seen=(sent % SECRET).encode(), at="judged")
    assert found.finding is Finding.BREACHED
    assert found.evidence[0] == f"seen outside: the credential's value came to {NAMES['judged']}"
    assert SECRET not in "".join(found.evidence)


def test_a_value_strays_only_where_it_is_not_for_and_by_an_attack() -> None:
    carried = f"GET /cut-ID-5-form HTTP/1.1\r\n\r\n{SECRET}".encode()
    assert strayed([(NAMES["bound"], carried)], SECRET) == {}
    assert strayed([(NAMES["judged"], carried.replace(SECRET.encode(), b"other"))], SECRET) == {}
    assert strayed([(NAMES["judged"], carried.replace(b"cut-", b"control-"))], SECRET) == {}
    assert strayed([("", carried)], SECRET) == {
        "ID-5": ("seen outside: the credential's value came to a listener",)
    }


def test_an_injected_credential_that_follows_the_host_header_is_evidence() -> None:
    seen = f"GET /open/attack-ID-1-reverse HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode()
    found = cell("ID-1", HELD, seen=seen, at="paths")
    assert f"seen outside: the credential's value came to {NAMES['paths']}" in found.evidence


def test_a_secret_that_the_origin_never_got_makes_the_search_for_it_worthless() -> None:
    assert cell("SECRET-1", HELD).finding is Finding.CONTROL_FAILED
    assert cell("SECRET-1", HELD, seen=SECRET.encode()).finding is Finding.HELD


def test_a_log_has_both_what_was_allowed_and_what_was_refused() -> None:
    told = Told(controls=(GOOD,))
    both = "/control-AUDIT-1 allowed\n/refused-AUDIT-1 refused\n"
    assert cell("AUDIT-1", told, log=both).finding is Finding.HELD
    assert cell("AUDIT-1", told, log="/control-AUDIT-1").finding is Finding.BREACHED
    assert cell("AUDIT-1", told).finding is Finding.BREACHED


def test_what_was_planted_is_seen_from_outside() -> None:
    planted = ("seen from outside: cloister.toml was written",)
    assert cell("FS-1", HELD, planted=planted).finding is Finding.BREACHED
    assert cell("CFG-1", HELD, planted=planted).finding is Finding.BREACHED
    assert cell("CFG-1", HELD, planted=("seen from outside: .envrc was written",)).finding is Finding.HELD


def test_what_enters_later_is_judged_by_what_it_told_itself() -> None:
    from cloister.verify.probes import LATER

    def later(**special: Told) -> Cell:
        told = {one: special.get(one.replace("-", "_"), HELD) for one in LATER}
        about = Described(title="", what="", no_control={("K-5", "the control"): "no socket at all"})
        observed = Observed(arrived=(), secret=SECRET, told={FIRST: {}, EXEC: told})
        return judged(["K-7"], about, observed)["K-7"]

    assert later().finding is Finding.HELD
    assert later(K_2=Told(attacks=(PASSED,), controls=(GOOD,))).finding is Finding.BREACHED
    excused = later(K_5=Told(attacks=(REFUSED,), controls=(BAD,)))
    assert excused.finding is Finding.HELD
    assert excused.notes == ("K-5: 'the control' failed, and had to: no socket at all",)
