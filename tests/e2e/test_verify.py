"""`cloister verify` as a user types it: every probe holds, as root and as an ordinary user."""

from __future__ import annotations

import json

import pytest

from cloister.verify.probes import PROBES
from tests.world import Cloister

pytestmark = pytest.mark.sandbox


def test_every_probe_holds(cloister: Cloister) -> None:
    done = cloister("verify", "--json", timeout_s=120)
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
    assert user_cloister("up").code == 0
    try:
        done = user_cloister("verify", "--sandbox", "main", "--tap")
        assert done.code == 0, done
        assert done.out.count("\nok ") == len(PROBES)
        assert "ok 35 - K-1" in done.out
        assert user_cloister("exec", "--", "ls", "/tmp").out == ""
    finally:
        user_cloister("stop")


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
