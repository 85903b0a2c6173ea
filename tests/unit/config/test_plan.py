"""The stored plan counts only while every source holds the same bytes, for this version alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloister import PLAN_FORMAT, __version__
from cloister.sandbox import plan


@pytest.fixture
def stored(tmp_path: Path) -> tuple[str, dict[str, Any]]:
    (tmp_path / "config.toml").write_text("# mine\n")
    document: dict[str, Any] = {
        "format": PLAN_FORMAT,
        "cloister": __version__,
        "sources": [
            {"path": str(tmp_path / "config.toml"), "text": "# mine\n"},
            {"path": str(tmp_path / "cloister.toml"), "text": None},
        ],
    }
    path = str(tmp_path / "plan.json")
    plan.store(path, document)
    return path, document


def paths(stored: tuple[str, dict[str, Any]]) -> set[str]:
    return {source["path"] for source in stored[1]["sources"]}


def test_a_plan_of_other_files_does_not_count(stored: tuple[str, dict[str, Any]]) -> None:
    """Another XDG_CONFIG_HOME is another policy, even if the old file still holds what it held."""
    for other in (set(), {"/elsewhere/config.toml"}, paths(stored) | {"/elsewhere/config.toml"}):
        assert plan.load_current(stored[0], other) is None


def test_a_plan_that_holds_is_loaded(stored: tuple[str, dict[str, Any]]) -> None:
    path, document = stored
    assert plan.load_current(path, paths(stored)) == document
    assert Path(path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.toml", b"# other\n"),
        ("config.toml", b"# mine"),
        ("config.toml", b"# mine\r\n"),
        ("config.toml", b"\xff"),
        ("config.toml", None),
        ("cloister.toml", b"# new\n"),
        ("cloister.toml", b""),
    ],
)
def test_a_source_that_changed(
    stored: tuple[str, dict[str, Any]], tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    assert plan.load_current(stored[0], paths(stored)) is None


@pytest.mark.parametrize(
    ("key", "value"), [("cloister", "0.0.0-other"), ("format", 1), ("format", None), ("sources", None)]
)
def test_a_plan_of_another_version(stored: tuple[str, dict[str, Any]], key: str, value: object) -> None:
    path, document = stored
    sources = paths(stored)
    plan.store(path, {**document, key: value})
    assert plan.load_current(path, sources) is None
    del document[key]
    plan.store(path, document)
    assert plan.load_current(path, sources) is None


def test_a_plan_that_is_half_written_at_any_byte(stored: tuple[str, dict[str, Any]]) -> None:
    path = Path(stored[0])
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert plan.load_current(str(path), paths(stored)) is None


@pytest.mark.parametrize("content", [b"null", b"[]", b"\xff\xfe", b'{"sources": []}'])
def test_a_damaged_plan(stored: tuple[str, dict[str, Any]], content: bytes) -> None:
    Path(stored[0]).write_bytes(content)
    assert plan.load_current(stored[0], paths(stored)) is None


def test_no_plan(tmp_path: Path) -> None:
    assert plan.load_current(str(tmp_path / "plan.json"), set()) is None
    assert plan.load_current(str(tmp_path / "missing/plan.json"), set()) is None


def test_a_plan_is_plain_ascii_json(stored: tuple[str, dict[str, Any]]) -> None:
    assert json.loads(Path(stored[0]).read_text("ascii")) == stored[1]
