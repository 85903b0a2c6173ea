"""`cloister logs`: which lines are shown, how, and what is said when there are none."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.audit.log import AuditLog, Event
from cloister.audit.read import Reader, Selection
from cloister.cli import logs
from cloister.config import directories
from cloister.errors import UsageError

PROGRAM = """
import argparse, sys
from cloister.cli import logs
parser = argparse.ArgumentParser()
logs.configure(parser)
sys.exit(logs.execute(parser.parse_args()))
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "work" / ".git").mkdir(parents=True)
    (tmp_path / "work" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "work" / "deep").mkdir()
    return tmp_path / "work"


def write(workspace: Path, sandbox: str, *events: Event, seconds: float | None = None) -> None:
    moment = time.time() if seconds is None else seconds
    log = AuditLog(directories.audit_path(str(workspace)), sandbox, clock=lambda: moment)
    for event in events:
        log.write(event)
    log.close()


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    logs.configure(parser)
    return logs.execute(parser.parse_args(words))


@pytest.fixture
def two_sandboxes(workspace: Path) -> Path:
    write(workspace, "old", Event(kind="start"), Event(kind="connect", host="old.test", port=443))
    write(
        workspace,
        "new",
        Event(kind="start"),
        Event(kind="connect", host="new.test", port=443),
        Event(kind="refuse", host="exfil.test", port=443, reason="no rule covers exfil.test:443"),
    )
    return workspace


def test_the_latest_sandbox_is_shown_from_anywhere_below_the_workspace(
    two_sandboxes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-C", str(two_sandboxes / "deep")) == 0
    output = capsys.readouterr().out
    assert "new.test:443" in output
    assert "no rule covers exfil.test:443" in output
    assert "old.test" not in output
    assert "host:port" in output
    assert "\x1b" not in output


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        ((), [None, "new.test", "exfil.test"]),
        (("--sandbox", "old"), [None, "old.test"]),
        (("--all",), [None, "old.test", None, "new.test", "exfil.test"]),
        (("--all", "--refused"), ["exfil.test"]),
        (("--all", "--since", "1h"), [None, "old.test", None, "new.test", "exfil.test"]),
    ],
)
def test_which_lines(
    two_sandboxes: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    hosts: list[str | None],
) -> None:
    assert run("--json", "-C", str(two_sandboxes), *words) == 0
    assert [json.loads(line).get("host") for line in capsys.readouterr().out.splitlines()] == hosts


def test_since_leaves_out_what_is_older(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(workspace, "box", Event(kind="start"), seconds=time.time() - 7200)
    write(workspace, "box", Event(kind="end"))
    assert run("--json", "-C", str(workspace), "--since", "1h") == 0
    assert json.loads(capsys.readouterr().out)["event"] == "end"


def test_no_log_yet_says_how_to_get_one(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-C", str(workspace)) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "cloister run -- COMMAND" in captured.err
    assert repr(str(workspace)) in captured.err


def test_nothing_matches(two_sandboxes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-C", str(two_sandboxes), "--sandbox", "unknown") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Nothing in the log matches.\n"


@pytest.mark.parametrize("text", ["10", "m", "10 m", "-1h", "1.5h", "10M", "", "１m"])
def test_an_age_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        logs.duration_s(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200)])
def test_an_age(text: str, seconds: int) -> None:
    assert logs.duration_s(text) == seconds


def test_following_prints_one_heading_and_each_row_once(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No real waiting: each wait writes the next line, the last one is Ctrl-C."""
    steps: list[Callable[[], None]] = [
        lambda: write(workspace, "box", Event(kind="connect", host="one.test")),
        lambda: None,
        lambda: write(workspace, "box", Event(kind="connect", host="two.test")),
    ]

    def wait() -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    path = directories.audit_path(str(workspace))
    assert logs.show(Reader(path), Selection(), logs.TablePrinter().print, wait=wait) == 0
    output = capsys.readouterr().out
    assert [output.count(text) for text in ("host:port", "one.test", "two.test")] == [1, 1, 1]


def test_a_follower_sees_a_line_as_it_is_written(workspace: Path) -> None:
    write(workspace, "box", Event(kind="start"))
    argv = [sys.executable, "-c", PROGRAM, "--json", "-f", "-C", str(workspace)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as follower:
        if follower.stdout is None:
            pytest.fail("no pipe")
        assert json.loads(follower.stdout.readline())["event"] == "start"
        write(workspace, "box", Event(kind="end"))
        assert json.loads(follower.stdout.readline())["event"] == "end"
        follower.terminate()


def test_a_reader_that_goes_away_is_no_error(workspace: Path) -> None:
    write(workspace, "box", Event(kind="start"), *[Event(kind="dns", reason="x" * 500)] * 2000)
    argv = [sys.executable, "-c", PROGRAM, "--json", "-C", str(workspace)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        if program.stdout is None or program.stderr is None:
            pytest.fail("no pipe")
        program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(timeout=30) == 0
