from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.cli import dispatch
from tests.unit.images.conftest import FakeEngine

Enter = Callable[[str], Path]


def test_build_prints_the_reference_alone(
    enter_project: Enter,
    docker: FakeEngine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (enter_project("") / "pyproject.toml").touch()
    docker.knows("mine", "sha256:m1")
    assert dispatch(["image", "build", "--base", "mine"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("cloister/python:") and shown.out.count("\n") == 1
    assert shown.err.splitlines() == [
        "base: git, zsh, tmux, ripgrep and what every image has",
        "built: cloister/python:latest",
    ]
    assert dispatch(["image", "build", "--base", "mine"]) == 0
    assert capsys.readouterr().err == "already built: cloister/python:latest\n"


def test_list_and_detect(
    enter_project: Enter,
    docker: FakeEngine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (enter_project("") / "mix.exs").touch()
    docker.knows("cloister/elixir:latest", "sha256:e")
    assert dispatch(["image", "list", "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert {one["name"] for one in images if one["built"]} == {"elixir"}
    assert dispatch(["image", "list"]) == 0
    assert any(line.split()[:2] == ["elixir", "yes"] for line in capsys.readouterr().out.splitlines())
    assert dispatch(["image", "detect"]) == 0
    assert capsys.readouterr().out == "elixir\n  mix.exs: a project for elixir\n"
    assert dispatch(["image", "detect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image"] == "elixir"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["image", "build", "nodejs"], "did you mean: cloister image build ts"),
        (["image"], "required: COMMAND"),
        (["image", "build", "base", "--runtime", "containerd"], "expected: docker, podman"),
    ],
)
def test_usage(
    enter_project: Enter, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    enter_project("")
    assert dispatch(arguments) == 2
    assert words in capsys.readouterr().err
