"""Where things lie: a project's directory is safe whatever the project is called (CFG-3)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.config import directories

SAFE = re.compile(r"[a-z0-9]([a-z0-9._-]{0,38}[a-z0-9])?-[0-9a-f]{12}")


@pytest.mark.parametrize(
    ("path", "slug"),
    [
        ("/w/My Project", "my-project"),
        ("/w/-rf", "rf"),
        ("/w/--help", "help"),
        ("/w/..x", "x"),
        ("/w/...", "project"),
        ("/w/münchen", "m-nchen"),
        ("/w/日本", "project"),
        ("/w/a\nb", "a-b"),
        ("/w/$(id)", "id"),
        ("/w/" + "x" * 255, "x" * 40),
        ("/w/bytes-\udcff", "bytes"),
        ("/", "project"),
    ],
)
def test_project_names(path: str, slug: str) -> None:
    name = directories.project_id(path)
    assert name.rpartition("-")[0] == slug
    assert SAFE.fullmatch(name)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_path_has_a_safe_name(text: str) -> None:
    assert SAFE.fullmatch(directories.project_id("/" + text))


def test_paths_that_share_a_slug_have_names_of_their_own() -> None:
    paths = ["/w/a b", "/w/a-b", "/v/a-b", "/w/A-B"]
    assert len({directories.project_id(path) for path in paths}) == len(paths)


def test_a_link_and_dots_lead_to_the_same_project(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    environ = {"HOME": "/h"}
    real = directories.project(str(tmp_path / "real"), environ)
    assert directories.project(str(tmp_path / "link"), environ) == real
    assert directories.project(str(tmp_path / "real/../link/."), environ) == real
    assert os.path.dirname(real.state) == "/h/.local/state/cloister/projects"


@pytest.mark.parametrize("value", ["", "relative", "./x", "../x", "~/x"])
def test_a_relative_xdg_directory_counts_as_unset(value: str) -> None:
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": value, "XDG_STATE_HOME": value}
    assert directories.user_file(environ) == "/h/.config/cloister/config.toml"
    assert directories.state_directory(environ) == "/h/.local/state/cloister"


def test_an_absolute_xdg_directory_counts() -> None:
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"}
    assert directories.user_file(environ) == "/c/cloister/config.toml"
    assert directories.state_directory(environ) == "/s/cloister"


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_a_home_the_password_database_knows(environ: dict[str, str]) -> None:
    assert directories.home(environ).startswith("/")
