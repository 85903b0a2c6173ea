"""What a verification takes along of the user's configuration, and what it says it leaves out; looks from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloister.sandbox.registry import Process
from cloister.verify import observed, overlay, place
from cloister.verify.place import MASKED, PLANTED

ORIGINS = overlay.Origins(
    https_port=1, http_port=2, ca_file="/ca", secret_file="/secret", placeholder="cvp-1"
)
INIT = Process(pid=1, started=0)


def plan(**sandbox: Any) -> dict[str, Any]:
    return {
        "sandbox": sandbox, "policy": {"grants": [], "credentials": []}, "hosts": {}, "upstream_ca": [],
        "services": [],
    }  # fmt: skip


def test_the_users_settings_count() -> None:
    mine = plan(
        protect=["Makefile"], unmask=[".env"], ports=[{"host": 8080, "sandbox": 80}], workspace="bind"
    )
    found: Any = overlay.adapted(mine, ORIGINS)["sandbox"]
    assert (found["protect"], found["unmask"]) == (["Makefile"], [".env"])
    assert found["ports"] == [{"host": 8080, "sandbox": 80, "auto": True}]
    assert overlay.left_out(mine) == ()


def test_what_does_not_count_is_said() -> None:
    mine = {**plan(workspace="clone", detect_ports=True), "services": [{"name": "db"}, {"name": "mq"}]}
    services, workspace, ports = overlay.left_out(mine)
    assert services.startswith("services (db, mq): ")
    assert workspace.startswith('workspace = "clone": ')
    assert ports.startswith("ports of frameworks: ")
    found = overlay.adapted(mine, ORIGINS)
    assert found["services"] == []


def test_what_the_user_protects_is_there_and_what_they_unmask_is_not_tried(tmp_path: Path) -> None:
    protected = ["Makefile", "deep/er/file", ".git/config", ".vscode"]
    with place.made(
        {"HOME": str(tmp_path)}, str(tmp_path), protected=protected, unmask=[".env", ".aws"]
    ) as made:
        assert made.targets == (*PLANTED, "Makefile", "deep/er/file", ".vscode")
        assert made.planted()["deep/er/file"] == "yours\n"
        assert set(MASKED) - set(made.masked) == {".env", ".aws/credentials"}
    assert [path for path in tmp_path.rglob("cloister-verify-*") if path.exists()] == []


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """A process that holds what it is told, and that `observed` takes for the only one of a sandbox."""
    script = "import sys; told = sys.stdin.readline(); print('held', flush=True); sys.stdin.readline()"
    with subprocess.Popen(
        [sys.executable, "-I", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        monkeypatch.setattr(observed, "_others", lambda _init: iter([process.pid]))
        yield process
        process.kill()


def tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "held\n"


def test_the_search_of_memory_shows_something_only_if_it_finds_what_is_there(
    child: subprocess.Popen[str],
) -> None:
    known, value = os.urandom(16).hex(), os.urandom(16).hex()
    tell(child, known)
    assert observed.memory(INIT, value=value, known=known) == observed.Seen(breaches={"SECRET-1": ()})
    assert "SECRET-1" in observed.memory(INIT, value=value, known=os.urandom(16).hex()).failures
    assert observed.memory(INIT, value=known, known=value).breaches["SECRET-1"]


def test_what_cannot_be_seen_is_said() -> None:
    seen = observed.confinement(None) + observed.memory(None, value="a", known="b")
    assert set(seen.notes) == {"K-1", "SECRET-1"}
    assert (seen.breaches, seen.failures) == ({}, {})


def test_a_sandbox_without_a_process_in_sight_fails_the_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observed, "_others", lambda _init: iter(()))
    assert "K-1" in observed.confinement(INIT).failures
    assert "SECRET-1" in observed.memory(INIT, value="a", known="b").failures
