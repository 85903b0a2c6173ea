"""`cloister doctor`: what is printed, and the exit code."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import pytest

from cloister.cli import doctor
from cloister.doctor.checks import Attempt, HostFacts
from cloister.doctor.engines import EngineFacts

HEALTHY = HostFacts(
    kernel="6.1.0",
    architecture="x86_64",
    python_version=(3, 12, 1),
    python="/usr/bin/python3.12",
    uid=1000,
    package_manager="apt",
    bwrap="/usr/bin/bwrap",
    bwrap_version=(0, 9, 0),
    namespaces=Attempt(succeeded=True),
    bubblewrap=Attempt(succeeded=True),
    ipv6=True,
    seccomp_filters=True,
    libseccomp=True,
    cgroup_controllers=frozenset({"memory", "cpu", "pids"}),
    open_files_hard=None,
    ca_bundle="/etc/ssl/cert.pem",
    programs=frozenset({"git", "tmux"}),
)


def run(monkeypatch: pytest.MonkeyPatch, facts: HostFacts, *words: str) -> int:
    monkeypatch.setattr(doctor, "host_facts", lambda environ, *, untrusted: facts)
    parser = argparse.ArgumentParser()
    doctor.configure(parser)
    return doctor.execute(parser.parse_args(words))


def test_a_healthy_host(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, HEALTHY) == 0
    output = capsys.readouterr().out
    assert "cloister run works here." in output
    assert "→" not in output
    assert "\x1b" not in output


def test_a_remedy_can_be_copied_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = replace(
        HEALTHY,
        namespaces=Attempt(succeeded=False, step="uid_map", error="Permission denied"),
        bubblewrap=None,
        apparmor_restricts_userns=1,
        python="/a/very/long/path" * 20,
    )
    assert run(monkeypatch, broken) == 1
    output = capsys.readouterr().out
    assert (
        f'profile cloister-python "{"/a/very/long/path" * 20}" flags=(unconfined) {{\n  userns,\n' in output
    )
    assert "does not work here yet" in output


def test_what_the_host_says_cannot_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(
        monkeypatch, replace(HEALTHY, bubblewrap=Attempt(succeeded=False, step="bwrap", error="\x1b[2J[red]"))
    )
    output = capsys.readouterr().out
    assert "\\x1b[2J[red]" in output
    assert "\x1b" not in output


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, HostFacts(), "--json") == 1
    result = json.loads(capsys.readouterr().out)
    assert result["usable"] is False
    assert {"name", "grade", "sentence", "remedy"} == set(result["checks"][0])
    assert {check["grade"] for check in result["checks"]} <= {"ok", "none", "warn", "fail"}
    assert result["runtimes"] == []


def test_the_runtimes_that_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    engines = (
        EngineFacts(name="docker", program="/usr/bin/docker", version="27.1", images=("base",)),
        EngineFacts(name="podman", remedy="install it"),
    )
    assert run(monkeypatch, replace(HEALTHY, engines=engines)) == 0
    assert "cloister run works here, also with --runtime docker." in capsys.readouterr().out
    assert run(monkeypatch, replace(HEALTHY, engines=engines), "--json") == 0
    assert json.loads(capsys.readouterr().out)["runtimes"] == ["embedded", "docker"]
    assert run(monkeypatch, replace(HEALTHY, engines=engines, bwrap=None)) == 1
    assert "does not work here yet; it does with --runtime docker." in capsys.readouterr().out
