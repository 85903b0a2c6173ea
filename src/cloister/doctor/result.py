"""What a check of `doctor` finds.

Rule 1: "fail" means that `cloister run` would not work; "warn", that it works with less; "none", that something is not
there which nothing but itself needs. Each of them carries what to type.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Grade(Enum):
    OK = "ok"
    NONE = "none"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One result: a sentence, and what to type if it is not OK."""

    name: str
    grade: Grade
    sentence: str
    remedy: str = ""


def ok(name: str, sentence: str) -> Check:
    return Check(name=name, grade=Grade.OK, sentence=sentence)


def none(name: str, sentence: str, remedy: str) -> Check:
    return Check(name=name, grade=Grade.NONE, sentence=sentence, remedy=remedy)


def warn(name: str, sentence: str, remedy: str) -> Check:
    return Check(name=name, grade=Grade.WARN, sentence=sentence, remedy=remedy)


def fail(name: str, sentence: str, remedy: str) -> Check:
    return Check(name=name, grade=Grade.FAIL, sentence=sentence, remedy=remedy)
