"""The judges of an audit, by cases: scripts, places, lock files, verdicts."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.depaudit import canaries, lockfiles, places, report, scripts, verdict
from cloister.depaudit.observation import (
    Asked,
    Dependency,
    Observation,
    Opened,
    Process,
    Script,
    Sent,
    Written,
)
from cloister.depaudit.verdict import Level
from cloister.errors import UntrustedInputError

CASES = Path(__file__).parents[2] / "cases"


def cases(name: str) -> dict[str, Any]:
    return tomllib.loads((CASES / name).read_text())


@pytest.mark.parametrize("case", cases("audit_scripts.toml")["case"], ids=lambda case: case["about"])
def test_a_script_is_recognised_by_how_it_is_started(case: dict[str, Any]) -> None:
    found = scripts.recognise(
        case.get("path", ""),
        case["arguments"],
        case.get("environment", {}),
        case["directory"],
        workspace="/w",
    )
    assert (found.title if found else "") == case["script"]
    if found is not None:
        assert found.own == case.get("own", False)
        assert found.command == case.get("command", found.command)


@pytest.mark.parametrize(
    "case", cases("audit_scripts.toml")["program"], ids=lambda case: " ".join(case["arguments"])
)
def test_a_program_is_named_as_people_name_it(case: dict[str, Any]) -> None:
    assert scripts.program(case["arguments"]) == case["name"]
    assert scripts.shown(case["arguments"]) == case.get("shown", case["name"])


def test_a_place_has_a_meaning() -> None:
    expected = {
        path: word for word, paths in cases("audit_places.toml").items() if word != "odd" for path in paths
    }
    assert {path: places.place(path).value for path in expected} == expected


def test_some_places_are_odd_for_programs() -> None:
    expected = cases("audit_places.toml")["odd"]
    assert {path: bool(places.odd_program(path)) for path in expected} == expected


@pytest.mark.parametrize("case", cases("audit_lockfiles.toml")["case"], ids=lambda case: case["name"])
def test_a_lock_file_tells_what_no_registry_gives(case: dict[str, Any]) -> None:
    found = lockfiles.dependencies(case["name"], case["text"], file="./x")
    told = [
        f"{one.kind} {one.package} {one.source} {'pinned' if one.pinned else 'loose'}{' cleartext' if one.cleartext else ''}"
        for one in found
    ]
    assert told == case["found"]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"packages": 7}', '{"packages": {"a": 1}}', '{"dependencies": {"a": {"dependencies": []}}}'],
)
def test_a_damaged_lock_file_is_refused(text: str) -> None:
    with pytest.raises(UntrustedInputError, match="cannot be read"):
        lockfiles.dependencies("package-lock.json", text, file="./x")


NOTHING = Observation(command=("npm", "ci"), code=0, timed_out=False, duration_s=1.0)
THIEF = Script(package="evil", version="1.0.0", stage="postinstall", command="node x")
HUSKY = Script(package="app", version="1.0.0", stage="prepare", command="husky", own=True)
NODE = ("node", "x.js")


def opened(name: str, *program: str, script: int | None = 0, writing: bool = False) -> Observation:
    one = Opened(name=name, writing=writing, program=program, script=script)
    return replace(NOTHING, scripts=(THIEF,), opened=(one,))


def written(path: str, *, script: Script = THIEF, how: str = "new", by: int | None = 0) -> Observation:
    return replace(NOTHING, scripts=(script,), written=(Written(path=path, how=how, script=by),))


def sent(canary: str, target: str) -> Observation:
    return replace(NOTHING, sent=(Sent(canary=canary, target=target, how="in a POST request"),))


def asked(how: str) -> Observation:
    return replace(NOTHING, asked=(Asked(host="x.example", how=how, times=1, reason="no rule"),))


def depends(kind: str, *, pinned: bool, cleartext: bool = False) -> Observation:
    one = Dependency(file="./x", package="a", kind=kind, source="s", pinned=pinned, cleartext=cleartext)
    return replace(NOTHING, dependencies=(one,))


def started(path: str) -> Observation:
    one = Process(pid=1, parent=0, path=path, arguments=("x",), directory="/", script=0)
    return replace(NOTHING, scripts=(THIEF,), processes=(one,))


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (NOTHING, Level.CLEAN),
        (replace(NOTHING, scripts=(THIEF,)), Level.CLEAN),
        (opened("ssh-key", *NODE), Level.MALICIOUS),
        (opened("ssh-key"), Level.MALICIOUS),
        (opened("ssh-key", "ssh", script=None), Level.CLEAN),
        (opened("ssh-key", "ssh"), Level.MALICIOUS),
        (opened("ssh-key", "rustc", script=None), Level.MALICIOUS),
        (opened("npmrc", "node", "/usr/bin/npm", script=None), Level.CLEAN),
        (opened("npmrc", *NODE), Level.SUSPICIOUS),
        (opened("npmrc", *NODE, script=None), Level.SUSPICIOUS),
        (opened("netrc", script=None), Level.CLEAN),
        (opened("dotenv", *NODE), Level.SUSPICIOUS),
        (opened("~/.bashrc", *NODE), Level.CLEAN),
        (written("~/.bashrc", how="changed"), Level.MALICIOUS),
        (written("~/.bashrc", how="removed"), Level.MALICIOUS),
        (written("./.git/hooks/pre-commit"), Level.MALICIOUS),
        (written("./.git/hooks/pre-commit", script=HUSKY), Level.SUSPICIOUS),
        (written("~/.bashrc", script=HUSKY), Level.MALICIOUS),
        (written("~/.ssh/authorized_keys", by=None), Level.MALICIOUS),
        (written("~/x.txt"), Level.SUSPICIOUS),
        (written("~/x.txt", by=None), Level.CLEAN),
        (written("~/x.txt", by=None, how="removed"), Level.SUSPICIOUS),
        (written("./node_modules/x/y"), Level.CLEAN),
        (written("./package-lock.json"), Level.CLEAN),
        (sent("ssh-key", "evil.example"), Level.MALICIOUS),
        (sent("$GITHUB_TOKEN", "api.github.com"), Level.SUSPICIOUS),
        (sent("$GITHUB_TOKEN", "api.github.com.evil.example"), Level.MALICIOUS),
        (sent("unknown", "evil.example"), Level.MALICIOUS),
        (asked("refused"), Level.SUSPICIOUS),
        (asked("allowed"), Level.CLEAN),
        (asked("unreachable"), Level.CLEAN),
        (depends("git", pinned=True), Level.CLEAN),
        (depends("git", pinned=False), Level.SUSPICIOUS),
        (depends("url", pinned=True, cleartext=True), Level.SUSPICIOUS),
        (depends("index", pinned=True), Level.SUSPICIOUS),
        (started("/dev/shm/x"), Level.SUSPICIOUS),
        (started("/usr/bin/x"), Level.CLEAN),
    ],
)
def test_the_verdict(seen: Observation, level: Level) -> None:
    planted = {one.name: one for one in canaries.make(lambda: b"seed" * 8)}
    found = verdict.judge(seen, planted)
    assert found.level is level, found
    # Whatever the verdict: both forms of the report can be made of it.
    assert report.document(seen, found)["verdict"] == level.word
    assert list(report.page(seen, found))


def test_a_refusal_because_of_a_canary_is_told_once() -> None:
    seen = replace(
        sent("npmrc", "*.evil.example"), asked=(Asked(host="aa.evil.example", how="refused", times=1),)
    )
    found = verdict.judge(seen, {})
    assert [reason.level for reason in found.reasons] == [Level.MALICIOUS]


def test_what_comes_from_the_sandbox_is_escaped_on_the_page() -> None:
    seen = written("~/x\x1b[2J\u202e")
    text = "".join(str(part) for part in report.page(seen, verdict.judge(seen, {})) if hasattr(part, "plain"))
    rows = [
        cell.plain  # type: ignore[union-attr]  # every cell is a Text
        for part in report.page(seen, verdict.judge(seen, {}))
        if hasattr(part, "columns")
        for column in part.columns
        for cell in column._cells
    ]
    assert "\x1b" not in text + "".join(rows)
    assert any("\\x1b[2J\\u202e" in row for row in rows)
