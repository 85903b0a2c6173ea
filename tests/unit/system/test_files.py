from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from cloister.system import files


def test_read_of_what_is_not_there(tmp_path: Path) -> None:
    assert files.read(str(tmp_path / "nothing")) is None
    assert files.read(str(tmp_path)) is None  # a directory stands where a protected file does not exist


def test_bytes_survive_as_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\x00a")
    text = files.read_text(str(tmp_path / "file"))
    assert text is not None
    assert text.encode("utf-8", "surrogateescape") == b"\xff\x00a"


def test_atomic_write_replaces_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomic(str(path), b"one")
    files.write_atomic(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space") as caught:
        files.write_atomic(str(path), b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def _count(path: str, lock: str) -> None:
    for _ in range(50):
        with files.locked(lock):
            number = int(Path(path).read_text())
            Path(path).write_text(str(number + 1))


def test_the_lock_excludes(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    workers = [
        multiprocessing.Process(target=_count, args=(str(counter), str(tmp_path / "lock"))) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert counter.read_text() == "200"


def test_private_directories_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.make_private_directory(str(tmp_path / "a/b/c"))
        files.make_private_directory(str(tmp_path / "a/b/c"))
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b", "a/b/c")] == [0o700] * 3
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        files.make_private_directory(str(tmp_path / "file"))


def test_a_killed_writers_file_is_known(tmp_path: Path) -> None:
    gone = multiprocessing.Process(target=int)
    gone.start()
    gone.join()
    assert files.abandoned(f"plan.json.{gone.pid}.0a1b2c3d.tmp")
    assert not files.abandoned(f"plan.json.{os.getpid()}.0a1b2c3d.tmp"), "its writer lives"
    for name in ("plan.json", "plan.tmp", "a.b.c.tmp", f"plan.json.{gone.pid}.0a1b2c3d"):
        assert not files.abandoned(name)
