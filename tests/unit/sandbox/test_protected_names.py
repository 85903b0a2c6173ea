"""What tools of the host obey is read-only where it is, and swept where it is made. The names: tests/cases/protected_names.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cloister.depaudit.places import Place, place
from cloister.sandbox import quarantine, scan
from cloister.workspaces import review

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/protected_names.toml").read_text())
MASKED = {".envrc"}  # which protects as well


def make(workspace: Path, path: str) -> Path:
    """A file, or a directory with one in it: an empty one says nothing."""
    file = workspace / (f"{path}anything" if path.endswith("/") else path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    return workspace / path.rstrip("/")


def held(workspace: Path, home: Path) -> set[str]:
    found = scan.scan(str(workspace), home=str(home))
    return {*found.read_only, *found.masked_files}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    directory = tmp_path / "workspace"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("path", CASES["obeyed"])
def test_what_the_host_obeys_is_read_only(workspace: Path, tmp_path: Path, path: str) -> None:
    assert str(make(workspace, path)) in held(workspace, tmp_path)


@pytest.mark.parametrize("path", CASES["free"])
def test_what_looks_alike_is_not(workspace: Path, tmp_path: Path, path: str) -> None:
    make(workspace, path)
    assert held(workspace, tmp_path) == set()


@pytest.mark.parametrize(
    "path", sorted(set(CASES["obeyed"]) - {".gitmodules"})
)  # that one is looked at by what it says
def test_what_is_newly_made_is_swept(workspace: Path, tmp_path: Path, path: str) -> None:
    made = make(workspace, path)
    (moved,) = quarantine.sweep(str(workspace), frozenset(), str(tmp_path / "quarantine"))
    assert not made.exists()
    assert (workspace / moved.path).parent == made.parent or moved.path == str(made.relative_to(workspace))


@pytest.mark.parametrize("path", CASES["free"])
def test_what_is_newly_made_and_harmless_stays(workspace: Path, tmp_path: Path, path: str) -> None:
    made = make(workspace, path)
    assert quarantine.sweep(str(workspace), frozenset(), str(tmp_path / "quarantine")) == ()
    assert made.exists()


@pytest.mark.parametrize("path", CASES["obeyed"])
def test_a_link_of_that_name_is_swept_too(workspace: Path, tmp_path: Path, path: str) -> None:
    target = workspace / "elsewhere"
    target.mkdir()
    (target / "anything").write_text("x")
    link = workspace / path.rstrip("/")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    quarantine.sweep(str(workspace), frozenset(), str(tmp_path / "quarantine"))
    assert not link.is_symlink()


@pytest.mark.parametrize(("paths", "obeyed"), [(CASES["obeyed"], True), (CASES["free"], False)])
def test_reviews_and_audits_judge_alike(paths: list[str], obeyed: bool) -> None:
    for path in paths:
        inner = f"{path}anything" if path.endswith("/") else path
        assert bool(review.protected_name(inner)) is obeyed, path
        if obeyed:
            assert place(f"./{inner}") in {Place.HOOK, Place.CREDENTIALS, Place.LOGIN}, path
