from __future__ import annotations

from pathlib import Path

from cloister.sandbox import scan
from cloister.sandbox.tool_repositories import hold_repository


def test_a_git_directory_a_file_and_a_link_count_at_any_depth(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "none"):
        (tmp_path / name / "x/y").mkdir(parents=True)
    (tmp_path / "a/x/y/.git").mkdir()
    (tmp_path / "b/x/.git").write_text("gitdir: elsewhere")
    (tmp_path / "c/.git").symlink_to("elsewhere")
    (tmp_path / "none/x/link").symlink_to(tmp_path / "a")
    (tmp_path / "none/x/.gitignore").touch()
    assert [hold_repository([str(tmp_path / name)]) for name in ("a", "b", "c")] == [True] * 3
    assert not hold_repository([str(tmp_path / "none"), str(tmp_path / "gone")])


def test_what_cannot_be_listed_counts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # root lists every directory; this fails for everyone
    assert hold_repository([str(tmp_path / "file")])


def test_a_scan_says_where_it_did_not_look(tmp_path: Path) -> None:
    for name in ("node_modules/inner/target", "src", "venv/.git"):
        (tmp_path / name).mkdir(parents=True)
    found = scan.scan(str(tmp_path), home=str(tmp_path))
    assert found.unwalked == (str(tmp_path / "node_modules"),)  # a venv that is a repository is looked at
