"""A probe's outcome: a breach wins, "held" must be earned, and what comes from inside is only data."""

from __future__ import annotations

import ast
import json
from xml.etree import ElementTree

import pytest

from cloister.errors import UntrustedInputError
from cloister.values import replace
from cloister.verify import program, report, verdict
from cloister.verify.probes import BY_ID, HOST, LATER
from cloister.verify.run import Report
from cloister.verify.verdict import EXEC, FIRST, Attempt, Outcome, Result, Told, Witness

PROBE = BY_ID["NET-1"]
GOOD, BAD = Attempt(what="one", succeeded=True, got="200"), Attempt(what="two", succeeded=False, got="403")
HELD = Told(attacks=(BAD,), controls=(GOOD,))
NOTHING = Witness(breaches={}, failures={})
BOTH = (FIRST, EXEC)


def judged(
    first: Told | None, later: Told | None = HELD, witness: Witness = NOTHING, name: str = "NET-1"
) -> Outcome:
    told = {key: {name: one} for key, one in ((FIRST, first), (EXEC, later)) if one is not None}
    return verdict.judge(BY_ID[name], told, witness, BOTH).outcome


def test_held_needs_attacks_and_controls_in_every_pass() -> None:
    assert judged(HELD) is Outcome.HELD
    assert judged(HELD, None) is Outcome.CONTROL_FAILED
    assert judged(Told(attacks=(BAD,))) is Outcome.CONTROL_FAILED
    assert judged(Told(attacks=(BAD,), controls=(GOOD, BAD))) is Outcome.CONTROL_FAILED


def test_a_judge_that_was_told_nothing_does_not_say_held() -> None:
    assert verdict.judge(PROBE, {}, NOTHING, BOTH).outcome is Outcome.CONTROL_FAILED


def test_a_breach_wins_over_everything() -> None:
    breached = Told(attacks=(BAD, GOOD), controls=(BAD,))
    assert judged(breached) is Outcome.BREACHED
    assert judged(HELD, breached) is Outcome.BREACHED
    assert judged(Told(missing="no IPv6", attacks=(GOOD,))) is Outcome.BREACHED


def test_the_witness_outside_decides_whatever_was_said_inside() -> None:
    assert (
        judged(HELD, witness=Witness(marks=frozenset({"attack-NET-1"}), breaches={}, failures={}))
        is Outcome.BREACHED
    )
    assert judged(HELD, witness=Witness(breaches={"NET-1": ("seen",)}, failures={})) is Outcome.BREACHED
    assert judged(HELD, witness=Witness(breaches={}, failures={"NET-1": ("no",)})) is Outcome.CONTROL_FAILED


def test_what_is_missing_is_not_applicable() -> None:
    assert judged(Told(missing="no IPv6"), Told(missing="no IPv6")) is Outcome.NOT_APPLICABLE


def test_what_one_pass_could_not_try_is_a_note_beside_what_another_held() -> None:
    told = {FIRST: {"NET-1": Told(missing="no IPv6")}, EXEC: {"NET-1": replace(HELD, notes=("and no CPU",))}}
    seen = replace(NOTHING, notes={"NET-1": ("invisible",)})
    result = verdict.judge(PROBE, told, seen, BOTH)
    assert (result.outcome, result.notes) == (Outcome.HELD, ("no IPv6", "and no CPU", "invisible"))


def test_the_hosts_probes_are_judged_by_the_hosts_pass() -> None:
    probe, passes = BY_ID["AV-3"], (*BOTH, HOST)
    assert verdict.judge(probe, {HOST: {"AV-3": HELD}}, NOTHING, passes).outcome is Outcome.HELD
    assert verdict.judge(probe, {FIRST: {"AV-3": HELD}}, NOTHING, passes).outcome is Outcome.CONTROL_FAILED
    assert verdict.judge(probe, {}, NOTHING, BOTH).outcome is Outcome.NOT_APPLICABLE
    both = BY_ID["K-6"]
    inside = {FIRST: {"K-6": HELD}, EXEC: {"K-6": HELD}}
    assert verdict.judge(both, inside, NOTHING, passes).outcome is Outcome.CONTROL_FAILED
    assert verdict.judge(both, {**inside, HOST: {"K-6": HELD}}, NOTHING, passes).outcome is Outcome.HELD
    breached = {**inside, HOST: {"K-6": Told(attacks=(GOOD,), controls=(GOOD,))}}
    assert verdict.judge(both, breached, NOTHING, passes).outcome is Outcome.BREACHED


def test_k_7_is_made_of_the_later_process_alone() -> None:
    probe = BY_ID["K-7"]
    told = {FIRST: dict.fromkeys(LATER, Told(attacks=(GOOD,))), EXEC: dict.fromkeys(LATER, HELD)}
    assert verdict.judge(probe, told, NOTHING, BOTH).outcome is Outcome.HELD
    told[EXEC]["K-4"] = Told(attacks=(GOOD,), controls=(GOOD,))
    assert verdict.judge(probe, told, NOTHING, BOTH).outcome is Outcome.BREACHED
    assert verdict.judge(probe, {FIRST: told[FIRST]}, NOTHING, BOTH).outcome is Outcome.CONTROL_FAILED
    del told[EXEC]["K-1"]
    told[EXEC]["K-4"] = HELD
    assert verdict.judge(probe, told, NOTHING, BOTH).outcome is Outcome.CONTROL_FAILED


@pytest.mark.parametrize(
    "line", [b"", b"[]", b"7", b'{"id": "x"}', b'{"id": 1, "attacks": 3}', b"\xff", b"null"]
)
def test_a_line_that_cannot_be_understood_is_an_error(line: bytes) -> None:
    with pytest.raises(UntrustedInputError):
        verdict.parse(line)


def test_what_comes_from_inside_is_made_printable_and_an_odd_success_counts() -> None:
    line = {
        "id": "K-1",
        "attacks": [{"what": "\x1b]0;x\x07", "succeeded": "no", "got": "a" * 9999}],
        "controls": [],
        "missing": "",
    }
    parsed = verdict.parse(json.dumps(line).encode())
    assert parsed is not None
    (attempt,) = parsed[1].attacks
    assert attempt.succeeded
    assert "\x1b" not in attempt.what
    assert len(attempt.got) == 400
    assert verdict.parse(b'{"begun": true}') is None
    assert verdict.parse(b'{"done": true}') is None


def test_marks_name_their_probe_and_no_other() -> None:
    seen = b"GET /attack-K-1-x HTTP/1.1 control-NET-12"
    assert verdict.marks(seen, ["K-1", "K-11", "NET-1", "NET-12"]) == {"attack-K-1", "control-NET-12"}


def results(*outcomes: Outcome) -> tuple[Result, ...]:
    return tuple(
        Result(probe=PROBE, outcome=one, reason="<because> #1", evidence=("a & b",)) for one in outcomes
    )


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((Outcome.HELD,), 0),
        ((Outcome.HELD, Outcome.NOT_APPLICABLE), 0),
        ((Outcome.HELD, Outcome.CONTROL_FAILED), 3),
        ((Outcome.CONTROL_FAILED, Outcome.BREACHED), 1),
        ((), 3),
    ],
)
def test_exit_codes(outcomes: tuple[Outcome, ...], code: int) -> None:
    assert verdict.exit_code(results(*outcomes)) == code


def test_reports_render_every_outcome() -> None:
    found = Report(
        version="1", kernel="6", machine="x86_64", runtime="embedded", policy="p", user=0, started=0.0,
        duration_s=1.0, passes=BOTH, results=results(*Outcome),
    )  # fmt: skip
    document = json.loads(report.document(found))
    assert [one["outcome"] for one in document["results"]] == [one.value for one in Outcome]
    assert document["time"] == "1970-01-01T00:00:00Z"
    suite = ElementTree.fromstring(report.junit(found))
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("1", "1", "1")
    assert report.tap(found).splitlines()[:3] == ["TAP version 14", "1..4", f"ok 1 - NET-1 {PROBE.claim}"]
    assert report.tap(found).count("\nnot ok") == 2
    noted = replace(
        found,
        results=tuple(replace(one, notes=("not <here>",)) for one in found.results),
        left_out=('"x" & y',),
    )
    assert json.loads(report.document(noted))["left_out"] == ['"x" & y']
    assert report.tap(noted).count("# not reached: not <here>") == 4
    suite = ElementTree.fromstring(report.junit(noted))
    assert [one.text for one in suite.iter("system-out")] == ["not <here>"] * 4
    assert [one.get("value") for one in suite.iter("property")] == ['"x" & y']
    assert report.summary(found.results) == "1 held, 1 breached, 1 not applicable, 1 control failed"


def test_the_program_is_one_text_in_which_a_name_is_defined_once() -> None:
    tree = ast.parse(program.text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert sorted(names) == sorted(set(names))
    imported = {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not any(one.startswith("cloister") for one in imported)
