"""Configuration files with a fault: every word that a person gets, and nothing that a terminal would obey."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.config.compile import compile_plan
from cloister.config.files import LIMIT_BYTES, read_own_configuration
from cloister.config.load import Level, load
from cloister.config.locate import line_of, lines
from cloister.config.settings import Overrides
from cloister.errors import ConfigurationError

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/config_errors.toml").read_text())["case"]
PATHS = {"user": "config.toml", "project": "cloister.toml"}
# What a case cannot hold itself, or not at this length.
STAND_INS = {"{ESC}": "\x1b", "{DIGITS}": "9" * 5000, "{BRACKETS}": "[" * 100_000}


def fault(text: str, level: str) -> ConfigurationError:
    files: dict[str, tuple[str, str | None]] = {name: (path, None) for name, path in PATHS.items()}
    files[level] = (PATHS[level], text)
    with pytest.raises(ConfigurationError) as caught:
        compile_plan(user=files["user"], project=files["project"], overrides=Overrides(), home="/nonexistent")
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.get("name", case["text"].strip()))
def test_faults(case: dict[str, Any]) -> None:
    text, level = case["text"], case.get("level", "user")
    for stand_in, real in STAND_INS.items():
        text = text.replace(stand_in, real)
    error = fault(text, level)
    assert error.brief == f"{PATHS[level]}:{case['brief']}"
    for line in case.get("details", []):
        assert line.replace("{FILE}", PATHS[level]) in error.details.splitlines()
    if "then" in case:
        assert error.resolution == case["then"]
    assert all(character.isprintable() or character == "\n" for character in str(error))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.get("name", case["text"].strip()))
def test_a_fault_of_the_projects_file_is_one_there(case: dict[str, Any]) -> None:
    """No fault of the user's file may be overlooked in the project's, which an agent writes."""
    text = case["text"]
    for stand_in, real in STAND_INS.items():
        text = text.replace(stand_in, real)
    assert fault(text, "project").brief.startswith("cloister.toml:")


@given(st.text(max_size=80))
def test_any_text_is_a_configuration_or_a_fault(text: str) -> None:
    try:
        load("cloister.toml", text, Level.PROJECT)
    except ConfigurationError as error:
        assert error.brief.startswith("cloister.toml:")
        assert all(character.isprintable() or character in "\n\t" for character in str(error))


def test_a_file_name_cannot_paint_the_terminal() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load("/tmp/\x1b[2J/cloister.toml", "x", Level.PROJECT)
    assert caught.value.brief.startswith(r"/tmp/\x1b[2J/cloister.toml:1: ")


def test_lines_of_everything_in_a_file() -> None:
    found = lines(
        '# x\n[network]\nallow = [ # ["\n  "a",\n  """b\n"""\n  ,"c" ]\nhosts = { a = "1", "b.c" = "2" }\n'
        '[[network.rule]]\nhost = "x"\n[[network.rule]]\n"host" = \'y\'\n[sandbox.env]\nA.B = 1\n'
    )
    expected = {
        ("network",): 2,
        ("network", "allow"): 3,
        ("network", "allow", 0): 4,
        ("network", "allow", 1): 5,
        ("network", "allow", 2): 7,
        ("network", "hosts", "b.c"): 8,
        ("network", "rule", 0): 9,
        ("network", "rule", 0, "host"): 10,
        ("network", "rule", 1): 11,
        ("network", "rule", 1, "host"): 12,
        ("sandbox", "env"): 13,
        ("sandbox", "env", "A", "B"): 14,
    }
    assert {path: found.get(path) for path in expected} == expected
    assert line_of(found, ("network", "rule", 1, "ports", 3)) == 11, "the nearest thing that holds it"
    assert line_of(found, ("nothing",)) == 1


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_a_file_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        read_own_configuration(str(path))
    assert caught.value.brief == f"{path}:1: the file is writable by other users"
    assert caught.value.resolution == f"chmod go-w {path}"
    path.chmod(0o644)
    assert read_own_configuration(str(path)) == ""


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine")
    real.chmod(0o600)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    assert read_own_configuration(str(link)) == "# mine"
    real.chmod(0o666)
    with pytest.raises(ConfigurationError, match="writable by other users"):
        read_own_configuration(str(link))


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read_own_configuration(str(tmp_path / "config.toml")) is None
    (tmp_path / "file").touch()
    assert read_own_configuration(str(tmp_path / "file/config.toml")) is None
    (tmp_path / "directory").mkdir()
    assert read_own_configuration(str(tmp_path / "directory")) is None


def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigurationError) as caught:
        read_own_configuration(str(path))
    assert caught.value.brief == f"{path}:1: the file cannot be read: it is not a regular file"


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"#" * (LIMIT_BYTES + 1))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="it is larger than 1 MiB"):
        read_own_configuration(str(path))
    path.write_bytes(b"#" * LIMIT_BYTES)
    assert read_own_configuration(str(path)) == "#" * LIMIT_BYTES


def test_bytes_that_are_no_text_have_a_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"# one\n# two \xff\n")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        read_own_configuration(str(path))
    assert caught.value.brief == f"{path}:2: the file is not UTF-8 text"
