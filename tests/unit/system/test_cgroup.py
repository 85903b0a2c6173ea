"""Limits by cgroup v2 on a tree of ordinary files: what is written where. (The kernel's own tree is not at hand in CI.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.system import cgroup


def tree(tmp_path: Path, *, controllers: str = "cpuset cpu io memory pids", enabled: str = "") -> Path:
    directory = tmp_path / "user.slice/app.scope"
    directory.mkdir(parents=True)
    (directory / "cgroup.controllers").write_text(controllers + "\n")
    (directory / "cgroup.subtree_control").write_text(enabled + "\n")
    (directory / "cgroup.procs").write_text("1\n")
    return directory


def find(tmp_path: Path, text: str = "0::/user.slice/app.scope\n") -> cgroup.Delegation:
    return cgroup.delegation(text, (str(tmp_path / "absent"), str(tmp_path)))


def test_delegation(tmp_path: Path) -> None:
    directory = tree(tmp_path)
    found = find(tmp_path, "9:name=systemd:/x\n0::/user.slice/app.scope\n")
    assert found.directory == str(directory)
    assert found.controllers == {"memory", "cpu", "pids"}


@pytest.mark.parametrize("text", ["", "4:memory:/x\n", "0::/elsewhere\n", "garbage"])
def test_nothing_is_delegated_by_default(tmp_path: Path, text: str) -> None:
    tree(tmp_path)
    assert find(tmp_path, text).controllers == frozenset()


def test_a_tree_without_controllers(tmp_path: Path) -> None:
    tree(tmp_path, controllers="hugetlb")
    assert find(tmp_path) == cgroup.Delegation()


def test_limits_are_written(tmp_path: Path) -> None:
    directory = tree(tmp_path)
    group = cgroup.create(find(tmp_path), "box", memory_bytes=1 << 30, cpus=1.5, pids=99)
    assert group is not None
    made = Path(group.directory)
    assert made.parent == directory
    assert (made / "memory.max").read_text() == str(1 << 30)
    assert (made / "cpu.max").read_text() == "150000 100000"
    assert (made / "pids.max").read_text() == "99"
    assert (directory / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (directory / "cloister-session/cgroup.procs").read_text().isdigit()


def test_no_group_where_the_kernel_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes in the cgroup: EBUSY. The caller then uses rlimits; nothing half made stays."""
    directory = tree(tmp_path)
    where = find(tmp_path)
    write = cgroup._write

    def refuse(path: str, text: str) -> None:
        if path.endswith("subtree_control"):
            raise OSError(16, "Device or resource busy")
        write(path, text)

    monkeypatch.setattr(cgroup, "_write", refuse)
    assert cgroup.create(where, "box", memory_bytes=1, cpus=1, pids=1) is None
    assert not (directory / "cloister-box").exists()


def test_remove_is_idempotent(tmp_path: Path) -> None:
    cgroup.remove(str(tmp_path / "never"))
    (tmp_path / "group").mkdir()
    cgroup.remove(str(tmp_path / "group"))
    cgroup.remove(str(tmp_path / "group"))
    assert not (tmp_path / "group").exists()
