"""The profile for container engines says what the embedded runtime's filter does."""

from __future__ import annotations

import json

from cloister.runtimes import seccomp_profile
from cloister.runtimes import seccomp_table as table
from cloister.runtimes.seccomp_rules import EPERM, rules

PROFILE = json.loads(seccomp_profile.profile())


def unconditional(errno: int | None) -> set[str]:
    return {
        name
        for entry in PROFILE["syscalls"]
        if "args" not in entry and entry.get("errnoRet") == errno
        for name in entry["names"]
    }


def test_what_no_rule_names_is_refused() -> None:
    assert (PROFILE["defaultAction"], PROFILE["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert "architectures" not in PROFILE  # the engine's own alone
    assert "archMap" not in PROFILE


def test_the_table() -> None:
    assert unconditional(None) == set(table.ALLOWED)
    assert unconditional(EPERM) == set(table.FORBIDDEN)
    assert unconditional(38) == set(table.ABSENT)


def test_every_condition_is_there() -> None:
    entries = [entry for entry in PROFILE["syscalls"] if "args" in entry]
    assert len(entries) == len([rule for rule in rules() if rule.conditions])
    assert {entry["action"] for entry in entries} == {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"}
    user_namespace = [
        entry for entry in entries
        if entry["names"] == ["unshare"] and entry["args"][0]["valueTwo"] == 0x10000000
    ]  # fmt: skip
    assert [entry["errnoRet"] for entry in user_namespace] == [EPERM]


def test_one_condition_an_argument() -> None:
    """runc takes two on one argument for alternatives."""
    for entry in PROFILE["syscalls"]:
        indexes = [argument["index"] for argument in entry.get("args", ())]
        assert len(indexes) == len(set(indexes))
