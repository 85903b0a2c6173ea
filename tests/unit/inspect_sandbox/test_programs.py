"""The programs for files, run here: what they do, and which error their end is."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from cloister.inspect_sandbox import programs


def failure(argv: list[str], path: Path, data: bytes = b"") -> OSError | None:
    done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=20)
    return programs.failure(done.returncode, done.stderr.decode(), str(path))


def test_a_file_is_read_as_it_is_and_no_further(tmp_path: Path) -> None:
    file = tmp_path / "-n with 'quotes'\n"
    file.write_bytes(b"\r\n\x00\xff" * 10)
    argv = programs.reading(str(file), most_bytes=6)
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"\r\n\x00\xff\r\n"


def test_a_file_is_written_with_its_directories(tmp_path: Path) -> None:
    file = tmp_path / "$(touch planted)" / "-a" / "file"
    assert failure(programs.writing(str(file)), file, b"\x00\xff") is None
    assert file.read_bytes() == b"\x00\xff"
    assert failure(programs.writing(str(file)), file) is None
    assert file.read_bytes() == b""
    assert not (tmp_path / "planted").exists()


def test_errors_name_the_file(tmp_path: Path) -> None:
    missing = failure(programs.reading(str(tmp_path / "no"), most_bytes=1), tmp_path / "no")
    assert isinstance(missing, FileNotFoundError)
    assert str(tmp_path / "no") in str(missing)
    for argv in (programs.reading(str(tmp_path), most_bytes=1), programs.writing(str(tmp_path))):
        found = failure(argv, tmp_path)
        assert isinstance(found, IsADirectoryError)
        assert "is a directory" in str(found)
    beneath = tmp_path / "file" / "beneath"
    (tmp_path / "file").write_text("")
    assert isinstance(failure(programs.writing(str(beneath)), beneath), OSError)


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (103, "", PermissionError),
        (2, "sh: 1: cannot create /x: Permission denied", PermissionError),
        (1, "mkdir: cannot create directory: Read-only file system", PermissionError),
        (1, "cat: write error: No space left on device", OSError),
        (137, "", OSError),
    ],
)
def test_what_an_end_means(code: int, words: str, kind: type[OSError]) -> None:
    assert type(programs.failure(code, words, "/x")) is kind


def test_their_tools_are_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's own `head` does not say what a file holds."""
    (tmp_path / "head").write_text("#!/bin/sh\necho forged")
    (tmp_path / "head").chmod(0o755)
    (tmp_path / "file").write_text("true")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    argv = programs.reading(str(tmp_path / "file"), most_bytes=10)
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"true"


def test_all_that_carries_a_mark_is_ended_and_nothing_else() -> None:
    mark = uuid.uuid4().hex
    marked, other = (
        subprocess.Popen(["sleep", "1000"], env={"PATH": os.environ["PATH"], programs.MARK: value})
        for value in (mark, uuid.uuid4().hex)
    )
    try:
        subprocess.run(programs.ending(mark), check=False, timeout=60)
        assert marked.wait(10) == -9
        assert other.poll() is None
    finally:
        for process in (marked, other):
            process.kill()
            process.wait()
