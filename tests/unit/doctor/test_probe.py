"""The clerk, on the real host: all is found out, nothing is changed, no failure is an exception."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister.doctor import probe
from cloister.doctor.checks import check
from cloister.doctor.version import version
from cloister.sandbox import facts


def test_the_facts_of_this_host() -> None:
    namespace = os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/user")
    found = probe.host_facts(os.environ)
    assert found.system == "Linux"
    assert version(found.kernel) >= (5,)
    assert found.python_version >= (3, 11, 0)
    assert os.path.isabs(found.python)
    assert found.uid == os.geteuid()
    assert found.namespaces is not None
    assert found.seccomp_filters
    assert check(found)
    assert (os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/user")) == namespace


@pytest.mark.sandbox
def test_this_host_can_run_sandboxes() -> None:
    found = probe.host_facts(os.environ)
    assert found.namespaces is not None
    assert found.namespaces.succeeded
    assert found.bubblewrap is not None
    assert found.bubblewrap.succeeded
    assert found.ipv6 is not None


@pytest.fixture
def no_system_bwrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "SYSTEM_DIRECTORIES", ())


def fake_bwrap(directory: Path, script: str) -> str:
    program = directory / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.sandbox
@pytest.mark.usefixtures("no_system_bwrap")
def test_a_bubblewrap_that_fails_is_quoted(tmp_path: Path) -> None:
    script = (
        'case $1 in --version) echo "bubblewrap 0.6.1";; *) echo "bwrap: no such luck" >&2; exit 1;; esac'
    )
    program = fake_bwrap(tmp_path, script)
    found = probe.host_facts({"PATH": str(tmp_path)})
    assert found.bwrap == program
    assert found.bwrap_version == (0, 6, 1)
    assert found.bubblewrap is not None
    assert (found.bubblewrap.succeeded, found.bubblewrap.error) == (False, "no such luck")


@pytest.mark.usefixtures("no_system_bwrap")
def test_no_bubblewrap(tmp_path: Path) -> None:
    found = probe.host_facts({"PATH": str(tmp_path)})
    assert (found.bwrap, found.bwrap_version, found.bubblewrap) == (None, None, None)


def test_an_attempt_names_the_step_that_failed() -> None:
    def refused() -> bool:
        raise OSError(1, "unshare: Operation not permitted", None)

    attempt, result = probe._attempt(refused)
    assert (attempt.succeeded, attempt.step, result) == (False, "unshare", False)
    assert attempt.error == "Operation not permitted"


def test_an_attempt_that_dies_is_a_failure() -> None:
    attempt, _ = probe._attempt(lambda: os._exit(3))
    assert not attempt.succeeded


def test_a_container_is_recognised_by_its_variable() -> None:
    assert probe.container({"container": "lxc"}) in {"lxc", "docker", "podman"}
