"""The last resort of the command line: whatever goes wrong, a person gets a sentence and an exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloister import cli
from cloister.cli import options, run


def _raising(error: BaseException) -> Callable[[object], int]:
    def execute(_: object) -> int:
        raise error

    return execute


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/some/file"),
            125,
            "'/some/file': Permission denied\n  → ",
        ),
        (OSError(28, "No space left"), 125, "cloister: a disk is full\n  No space left\n  → make room"),
        (OSError(28, "No space left", "/a/b"), 125, "cloister: the disk of '/a' is full\n  No space left\n"),
        (OSError(5, "Input/output error"), 125, "cloister: Input/output error\n"),
        (RuntimeError("broken"), 125, "this is a bug in cloister: RuntimeError: broken\n"),
        (RecursionError("deep"), 125, "CLOISTER_DEBUG=1"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_no_traceback_ever(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(cli.DEBUG, raising=False)
    monkeypatch.setattr(run, "execute_plain", _raising(error))
    assert cli.dispatch(["run", "--", "true"]) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", ["stop", "rm", "up", "shell"])
def test_a_name_without_its_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch([command, "review"]) == 2
    assert f"did you mean: cloister {command} --name review\n" in capsys.readouterr().err


def test_what_to_type_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox of another directory is not the one that a plain `cloister stop` here is about."""
    monkeypatch.setenv("HOME", str(tmp_path))
    here, there = tmp_path / "here", tmp_path / "over there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    assert options.command_from_here("stop", str(here), "main") == "cloister stop"
    assert options.command_from_here("stop", str(here), "review") == "cloister stop --name review"
    assert options.command_from_here("stop", str(there), "main") == f"cloister stop -C '{there}'"


def test_a_traceback_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(cli.DEBUG, "1")
    monkeypatch.setattr(run, "execute_plain", _raising(RuntimeError("broken")))
    assert cli.dispatch(["run", "--", "true"]) == 125
    assert "Traceback" in capsys.readouterr().err
