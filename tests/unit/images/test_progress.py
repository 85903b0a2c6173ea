"""What real builders printed (tests/cases/builders): read whole, byte by byte is the clerk's, and with junk."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.images.failures import failure
from cloister.images.progress import TAIL_LINES, Output, Reader, Step

CASES = Path(__file__).parents[2] / "cases"
FAILURES = tomllib.loads((CASES / "build_failures.toml").read_text())["case"]
BUILDERS = ("buildkit", "classic", "podman")


def read(builder: str, ending: str) -> tuple[Reader, list[Step | Output]]:
    reader = Reader()
    lines = (CASES / "builders" / f"{builder}-{ending}.txt").read_text().splitlines()
    return reader, [event for event in map(reader.feed, lines) if event is not None]


@pytest.mark.parametrize("builder", BUILDERS)
def test_stages_in_order(builder: str) -> None:
    _, events = read(builder, "success")
    stages = list(dict.fromkeys(event.stage for event in events if isinstance(event, Step) and event.stage))
    assert stages == ["base", "python", "image"]
    steps = [event.instruction for event in events if isinstance(event, Step)]
    assert 'RUN set -eu;     echo "Setting up something"' in steps
    assert Output(stage="base", text="Setting up something") in events
    assert Output(stage="python", text="two") in events


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_step_that_failed_and_its_last_lines(builder: str) -> None:
    reader, _ = read(builder, "failure")
    step, lines = reader.failure()
    assert step == Step(stage="python", instruction='RUN echo "one"; echo "E: it broke" >&2; exit 7')
    assert lines[:2] == ("one", "E: it broke")
    assert "7" in lines[-1]
    assert all("/bin/sh" not in line and "RUN" not in line for line in lines), "the instruction is said once"
    assert all(line.isprintable() for line in lines)


def test_steps_at_once_keep_their_own_lines() -> None:
    reader = Reader()
    for line in (
        "#5 [a 1/1] RUN x",
        "#6 [b 1/1] RUN y",
        "#5 0.1 of x",
        "#6 0.2 of y",
        "#5 ERROR: bad",
        "#6 CANCELED",
    ):
        reader.feed(line)
    assert reader.failure() == (Step(stage="a", instruction="RUN x"), ("of x", "ERROR: bad"))


def test_a_failure_outside_of_every_step() -> None:
    reader = Reader()
    for line in (
        "#1 [internal] load metadata for docker.io/library/x:y",
        "#1 ERROR: not found",
        "failed to solve: x:y: not found",
    ):
        reader.feed(line)
    step, lines = reader.failure()
    assert step is None
    assert lines == ("failed to solve: x:y: not found",)


def test_only_the_last_lines_are_kept() -> None:
    reader = Reader()
    reader.feed("STEP 1/2: RUN x")
    for number in range(1000):
        reader.feed(f"line {number}")
    assert len(reader.failure()[1]) == TAIL_LINES


@given(st.lists(st.text(max_size=60)))
def test_any_line_is_read(lines: list[str]) -> None:
    reader = Reader()
    for line in lines:
        reader.feed(line)
    failure("python", "docker", 1, *reader.failure())


@pytest.mark.parametrize("case", FAILURES, ids=lambda case: case["lines"][-1][:30])
def test_what_to_type(case: dict[str, Any]) -> None:
    # The instruction itself names what may go wrong: that is no sign of it.
    step = Step(stage="python", instruction="RUN echo 'cloister: this base has no apt-get'; exit 1")
    error = failure("python", "docker", 1, step, case["lines"])
    assert error.brief == "the image 'python' could not be built: docker ended with code 1"
    assert error.details.splitlines()[0].startswith("in python: RUN echo")
    assert error.details.splitlines()[1:] == case["lines"]
    assert error.resolution == case["then"]


def test_a_failure_cannot_paint_the_terminal() -> None:
    error = failure("python", "docker", 1, None, ["\x1b]0;owned\x07 \u202e"])
    assert all(character.isprintable() or character == "\n" for character in str(error))
