"""What may come from a private workspace, and what never does (ATTACKS FS-1, FS-2, FS-4)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloister.workspaces import review
from cloister.workspaces.changes import Change
from cloister.workspaces.review import Refused
from cloister.workspaces.tree import Entry

CASES: list[dict[str, Any]] = tomllib.loads(
    (Path(__file__).parents[2] / "cases/reviewed_changes.toml").read_text()
)["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['path']!r} {case.get('target', '')}")
def test_verdict(case: dict[str, Any]) -> None:
    kind = case.get("kind", "file")
    after = Entry(
        path=case["path"], kind=kind, target=case.get("target", ""), privileged=case.get("privileged", False)
    )
    verdict = review.judge(Change(path=case["path"], before=None, after=None if kind == "none" else after))
    assert type(verdict).__name__.lower() == case["verdict"], verdict
    assert not isinstance(verdict, Refused) or verdict.reason
