"""The judge of hosts, on faked ones. The cases are in tests/cases/doctor.toml."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.doctor import apparmor
from cloister.doctor.checks import Attempt, HostFacts, check, usable
from cloister.doctor.engines import EngineFacts
from cloister.doctor.result import Grade
from cloister.doctor.version import version

CASES = tomllib.loads((Path(__file__).parents[2] / "cases" / "doctor.toml").read_text())["case"]
HEALTHY = HostFacts(
    kernel="6.1.0-18-amd64",
    architecture="x86_64",
    python_version=(3, 11, 2),
    python="/usr/bin/python3.11",
    uid=1000,
    package_manager="apt",
    bwrap="/usr/bin/bwrap",
    bwrap_version=(0, 8, 0),
    namespaces=Attempt(succeeded=True),
    bubblewrap=Attempt(succeeded=True),
    ipv6=True,
    max_user_namespaces=15000,
    unprivileged_userns_clone=1,
    seccomp_filters=True,
    libseccomp=True,
    cgroup_controllers=frozenset({"memory", "cpu", "pids"}),
    legacy_tiocsti=0,
    open_files_hard=524288,
    ca_bundle="/etc/ssl/certs/ca-certificates.crt",
    programs=frozenset({"git", "tmux"}),
)


def facts(**changes: Any) -> HostFacts:  # as TOML writes them: "" and "untried" for None
    for name in ("namespaces", "bubblewrap"):
        if name in changes:
            step, _, error = changes[name].partition(": ")
            failed = Attempt(
                succeeded=False, step=step, error=error if name == "namespaces" else changes[name]
            )
            changes[name] = None if changes[name] == "untried" else failed
    for name, value in changes.items():
        if name == "engines":
            changes[name] = tuple(engine(**one) for one in value)
        elif isinstance(value, list):
            changes[name] = (frozenset if name in {"cgroup_controllers", "programs"} else tuple)(value)
        elif name in {"bwrap", "ca_bundle", "ipv6"} and value in ("", "untried"):
            changes[name] = None
    return replace(HEALTHY, **changes)


def engine(**facts: Any) -> EngineFacts:  # TOML knows no tuples
    return EngineFacts(**facts | {key: tuple(one) for key, one in facts.items() if isinstance(one, list)})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_host(case: dict[str, Any]) -> None:
    results = check(facts(**case.get("facts", {})))
    expected = case.get("expect", {})
    assert {one.name for one in results if one.grade is not Grade.OK} == set(expected)
    by_name = {one.name: one for one in results}
    for name, (grade, sentence, remedy) in expected.items():
        assert by_name[name].grade.value == grade
        assert sentence in by_name[name].sentence
        assert remedy in by_name[name].remedy
    assert usable(results) is case["usable"]


def test_nothing_known_denies_by_default() -> None:
    results = check(HostFacts())
    assert not usable(results)
    needed = {
        "kernel",
        "python",
        "bubblewrap",
        "user namespaces",
        "a sandbox",
        "seccomp",
        "libseccomp",
    }
    assert needed <= {one.name for one in results if one.grade is Grade.FAIL}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_whatever_is_not_ok_says_what_to_type_and_every_result_is_one_sentence(case: dict[str, Any]) -> None:
    for one in check(facts(**case.get("facts", {}))):
        assert bool(one.remedy) is (one.grade is not Grade.OK), one
        assert one.sentence.endswith(".")
        assert "\n" not in one.sentence


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("6.1.0-18-amd64", (6, 1, 0)),
        ("6.18.44-fc", (6, 18, 44)),
        ("5.15.167.4-microsoft-standard-WSL2", (5, 15, 167, 4)),
        ("bubblewrap 0.8.0\n", (0, 8, 0)),
        ("6.6-rc1", (6, 6)),
        ("none", ()),
        ("", ()),
    ],
)
def test_a_version(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers


def test_the_apparmor_profiles_cover_bubblewrap_and_the_interpreter() -> None:
    commands = apparmor.install_commands(bwrap="/usr/bin/bwrap", python="/home/me/.pyenv/bin/python3.12")
    assert commands.startswith(
        """\
# This lets every program that /home/me/.pyenv/bin/python3.12 runs create user namespaces.
sudo tee /etc/apparmor.d/cloister-bwrap >/dev/null <<'END'
abi <abi/4.0>,
include <tunables/global>

profile cloister-bwrap "/usr/bin/bwrap" flags=(unconfined) {
  userns,
  include if exists <local/cloister-bwrap>
}
END
sudo apparmor_parser -r /etc/apparmor.d/cloister-bwrap
"""
    )
    assert 'profile cloister-python "/home/me/.pyenv/bin/python3.12" flags=(unconfined)' in commands


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/a b", '"/a b"'),
        ('/a"b', '"/a\\"b"'),
        ("/a*{b}[c]?^@", '"/a\\*\\{b\\}\\[c\\]\\?\\^\\@"'),
        ("/a\\b", '"/a\\\\b"'),
    ],
)
def test_a_path_in_a_profile_is_only_that_path(path: str, text: str) -> None:
    assert apparmor.quoted(path) == text
