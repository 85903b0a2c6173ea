"""A program that a person watches, line by line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cloister.system.proc import LINE_LIMIT, follow

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def heard(script: str, timeout_s: float = 30) -> tuple[int, list[str]]:
    lines: list[str] = []
    code = follow(["/bin/sh", "-c", script], environment=ENVIRONMENT, timeout_s=timeout_s, hear=lines.append)
    return code, lines


def test_lines_of_both_streams_and_the_exit_code() -> None:
    assert heard("echo one; echo two >&2; printf three; exit 7") == (7, ["one", "two", "three"])


def test_what_is_no_text_is_shown_all_the_same() -> None:
    assert heard(r"printf 'a\377b\r\n'") == (0, ["a�b"])


def test_a_line_without_an_end_is_cut() -> None:
    code, lines = heard(f"head -c {LINE_LIMIT * 3} /dev/zero")
    assert code == 0
    assert [len(line) for line in lines] == [LINE_LIMIT] * 3


def test_a_time_limit(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="did not end within"):
        heard(f"echo $$ > {tmp_path}/pid; exec sleep 1000", timeout_s=0.5)
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}"), "it is gone"


def test_a_listener_that_fails_ends_it(tmp_path: Path) -> None:
    def stop(line: str) -> None:
        (tmp_path / "pid").write_text(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(
            [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"],
            environment=ENVIRONMENT,
            timeout_s=30,
            hear=stop,
        )
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text()}")
