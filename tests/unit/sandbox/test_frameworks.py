"""Which ports the files of a project show."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.policy.published import GATEWAY_PORTS, parse_published
from cloister.sandbox import frameworks

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/frameworks.toml").read_text())["project"]
CATALOGUE = frameworks.load()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_projects(case: dict[str, Any]) -> None:
    found = frameworks.detect(CATALOGUE, case["files"])
    assert [[one.port, one.framework, one.file] for one in found] == case["found"]


def test_every_framework_is_published_where_it_listens() -> None:
    names = {one.name for one in CATALOGUE.frameworks}
    for one in CATALOGUE.frameworks:
        assert one.npm or one.files or one.words, "else nothing shows it"
        assert one.port not in CATALOGUE.never
        assert parse_published(str(one.port)).host == one.port
        assert one.hides <= names - {one.name}
    assert CATALOGUE.never >= GATEWAY_PORTS
    assert CATALOGUE.files >= {"package.json", "manage.py", "Gemfile"}
    assert all("/" not in name for name in CATALOGUE.files), "only the project's root is looked at"


@given(st.text(max_size=200), st.text(alphabet="vite --port=0123456789&|;", max_size=60))
def test_whatever_the_files_say_a_port_is_one_that_may_be_published(text: str, script: str) -> None:
    package = f'{{"dependencies": {{"vite": "1"}}, "scripts": {{"dev": "vite {script}"}}}}'
    for texts in ({"package.json": text, "Gemfile": text}, {"package.json": package}):
        for one in frameworks.detect(CATALOGUE, texts):
            assert 1024 <= one.port <= 32767
            assert one.port not in CATALOGUE.never


def test_deep_json_is_no_project() -> None:
    assert frameworks.detect(CATALOGUE, {"package.json": "[" * 100_000}) == ()
