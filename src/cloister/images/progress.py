"""Read what a builder prints: Docker's classic builder, BuildKit (plain) and Podman.

Rule 1: this module does no I/O: lines in, events out.
Rule 2: a line that is not understood is output of the step at work. Nothing is lost for the report of a failure.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

TAIL_LINES = 15
_BUILDKIT = re.compile(r"#(\d+) (.*)")
_BUILDKIT_STEP = re.compile(r"\[(?:(\S+) )?(\d+)/(\d+)\] (\S.*)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # the classic builder paints what a step prints as errors
_TIME = re.compile(r"\d+\.\d+ ")
_CLASSIC_STEP = re.compile(r"(?:\[\d+/\d+\] )?STEP (\d+)/(\d+) ?: (\S.*)", re.IGNORECASE)
_AS = re.compile(r"FROM \S+ AS (\S+)", re.IGNORECASE)
# The builders quote the whole instruction when they tell how it ended.
_QUOTED = re.compile(
    r"""executor failed running \[.*\]: |process ".*" did not complete successfully: """
    r"""|(?<=The command )'.*' (?=returned )|building at STEP ".*": """
)
_NOISE = re.compile(r" ?-+> |Removing intermediate container|Sending build context|(?:\[\d+/\d+\] )?COMMIT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The builder begins a step of a stage (a layer's name, or empty), with the instruction that it runs."""

    stage: str
    instruction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A line of what the step at work prints."""

    stage: str
    text: str


class Reader:
    """One build's output, line by line."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}
        self._tails: dict[str, deque[str]] = {}
        self._current = ""
        self._failed = ""
        self._stage = ""
        self._buildkit_speaks = False

    def feed(self, line: str) -> Step | Output | None:
        """Take one line, without its end."""
        line = _COLOUR.sub("", line)
        if found := _BUILDKIT.fullmatch(line):
            self._buildkit_speaks = True
            return self._buildkit(found[1], found[2])
        if found := _CLASSIC_STEP.fullmatch(line):
            if named := _AS.match(found[3]):
                self._stage = named[1]
            self._current = f"step {len(self._steps)}"
            return self._begin(self._current, self._stage, found[3])
        # BuildKit repeats a failure outside of the steps; alone there, it is one that no step had.
        return self._output("" if self._buildkit_speaks else self._current, line)

    def failure(self) -> tuple[Step | None, tuple[str, ...]]:
        """The step that failed, else the last one, and the last lines that it printed."""
        key = self._failed
        if not key:
            key = "" if self._buildkit_speaks and self._tails.get("") else self._current
        return self._steps.get(key), tuple(self._tails.get(key, ()))

    def _buildkit(self, key: str, text: str) -> Step | Output | None:
        if found := _BUILDKIT_STEP.fullmatch(text):
            self._current = key
            return None if key in self._steps else self._begin(key, found[1] or "", found[4])
        if text.startswith("ERROR"):
            self._failed = key if key in self._steps else self._failed
            return self._output(key, text)
        if timed := _TIME.match(text):
            return self._output(key, text[timed.end() :])
        return None

    def _begin(self, key: str, stage: str, instruction: str) -> Step:
        self._steps[key] = step = Step(stage=stage, instruction=instruction)
        self._tails[key] = deque(maxlen=TAIL_LINES)
        return step

    def _output(self, key: str, text: str) -> Output | None:
        text = _QUOTED.sub("", text)
        if not text.strip() or _NOISE.match(text):
            return None
        self._tails.setdefault(key, deque(maxlen=TAIL_LINES)).append(text.rstrip())
        step = self._steps.get(key)
        return Output(stage=step.stage if step else "", text=text.strip())
