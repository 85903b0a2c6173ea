from __future__ import annotations

from pathlib import Path

from cloister.sandbox import private_home


def test_mount_points_are_made(tmp_path: Path) -> None:
    private_home.prepare(str(tmp_path), [(".local/share/uv", True), (".local/bin/tool", False)])
    private_home.prepare(str(tmp_path), [(".local/share/uv", True), (".local/bin/tool", False)])
    assert (tmp_path / ".local/share/uv").is_dir()
    assert (tmp_path / ".local/bin/tool").is_file()


def test_a_planted_link_is_put_aside(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    (home / ".local").symlink_to(outside)
    (home / "tool").symlink_to(outside / "created")
    private_home.prepare(str(home), [(".local/share", True), ("tool", False)])
    assert list(outside.iterdir()) == []
    assert (home / ".local/share").is_dir()
    assert (home / ".local.in-the-way").is_symlink()
    assert not (home / "tool").is_symlink()


def test_a_directory_where_a_file_is_mounted_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "tool/inner").mkdir(parents=True)
    private_home.prepare(str(tmp_path), [("tool", False)])
    assert (tmp_path / "tool").is_file()
    assert (tmp_path / "tool.in-the-way/inner").is_dir()
