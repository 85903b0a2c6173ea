"""`cloister verify` as a user types it: every probe holds, as root and as an ordinary user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.verify.probes import INSIDE, PROBES
from tests.world import Cloister

pytestmark = pytest.mark.sandbox


def test_every_probe_holds(cloister: Cloister) -> None:
    done = cloister("verify", "--json", timeout_s=300)
    report = json.loads(done.out)
    assert {one["id"]: one["reason"] for one in report["results"] if one["outcome"] != "held"} == {}
    assert len(report["results"]) == len(PROBES)
    assert done.code == 0
    assert json.loads((cloister.state / "verify.json").read_text()) == report
    assert sorted(path.name for path in cloister.home.iterdir()) == [
        ".config",
        ".local",
        "project",
    ] or sorted(path.name for path in cloister.home.iterdir()) == [".local", "project"]
    assert list(cloister.project.iterdir()) == []


def test_a_live_sandbox_is_attacked_without_a_trace(user_cloister: Cloister) -> None:
    project = user_cloister.project
    user_cloister.write(project / ".vscode/settings.json", "{}\n")
    user_cloister.write(project / ".env", "TOKEN=1\n")
    user_cloister.write(project / ".git/HEAD", "ref: refs/heads/main\n")
    before = files_of(project)
    assert user_cloister("up").code == 0
    try:
        done = user_cloister("verify", "--sandbox", "main", "--json")
        assert done.code == 0, done
        report = json.loads(done.out)
        outcomes = {one["id"]: one["outcome"] for one in report["results"]}
        assert list(outcomes) == [probe.id for probe in PROBES]
        held = {probe.id for probe in PROBES if not probe.own_origin and INSIDE in probe.sides} - {"K-6"}
        assert {name for name, outcome in outcomes.items() if outcome == "held"} == held
        assert {"FS-1", "FS-3", "FS-6", "K-7", "NET-1", "NET-7"} <= held
        assert all(one["reason"] for one in report["results"])
        assert user_cloister("exec", "--", "ls", "-A", "/tmp").out == ""
    finally:
        user_cloister("stop")
    assert files_of(project) == before


def files_of(project: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in project.rglob("*") if path.is_file()}


def test_the_users_own_rules_stay_in_force(user_cloister: Cloister) -> None:
    """The overlay adds names of its own and takes nothing away: a ban of the user's still bans."""
    user_cloister.configure('[network]\ndeny = ["open.cloister-verify.test"]\n')
    done = user_cloister("verify", "--only", "NET-2", "K-1")
    assert done.code == 3, done
    assert "control failed" in done.out


def test_what_is_no_probe_is_said(user_cloister: Cloister) -> None:
    done = user_cloister("verify", "--only", "NET-99")
    assert done.code == 2
    assert "there is no probe 'NET-99'" in done.err
    listed = user_cloister("verify", "--list")
    assert len(listed.out.splitlines()) == len(PROBES)
