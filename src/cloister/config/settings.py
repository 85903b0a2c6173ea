"""What the values of [sandbox] mean: sizes, counts, names of variables, paths.

Rule 1: a value that cannot be meant is an error with its line, not a default.
Rule 2: lists add up, the user's first; a single value of the project wins over the user's, the command line's
        over both.
"""

from __future__ import annotations

import math
import os
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cloister.config import runtime
from cloister.config.load import Loaded, nearest
from cloister.config.place import Place, option, place_of
from cloister.config.profiles import DEFAULT_PROFILE, PROFILES
from cloister.config.runtime import Made
from cloister.system.cgroup import DEFAULT_CPUS

DEFAULT_MEMORY_BYTES = 8 << 30
DEFAULT_PIDS = 1024
_LEAST_MEMORY_BYTES = 64 << 20
_LEAST_PIDS = 16
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says. `environment` holds (name, value); (name, None) passes the caller's on."""

    runtime: str | None = None
    image: str | None = None
    workspace: str | None = None
    profile: str | None = None
    allow: tuple[str, ...] = ()
    environment: tuple[tuple[str, str | None], ...] = ()
    memory: str | None = None
    cpus: float | None = None
    pids: int | None = None
    unmask: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    detect_ports: bool = False
    no_project_file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The merged [sandbox] tables."""

    made: Made
    profile: str
    memory_bytes: int
    cpus: float
    pids: int
    environment: tuple[tuple[str, str], ...]
    pass_environment: tuple[str, ...]
    unmask: tuple[str, ...]
    protect: tuple[str, ...]
    read_only: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The plan's "sandbox" value."""
        return {
            **self.made.document(),
            "memory_bytes": self.memory_bytes,
            "cpus": self.cpus,
            "pids": self.pids,
            "environment": dict(self.environment),
            "pass_environment": list(self.pass_environment),
            "unmask": list(self.unmask),
            "protect": list(self.protect),
            "read_only": list(self.read_only),
        }


def merged(files: Sequence[Loaded], overrides: Overrides, home: str) -> Settings:
    """Judge and merge: the user's file, the project's, the command line."""
    profile, memory, cpus, pids = DEFAULT_PROFILE, DEFAULT_MEMORY_BYTES, DEFAULT_CPUS, DEFAULT_PIDS
    environment: dict[str, str] = {}
    passed: list[str] = []
    unmask: list[str] = []
    protect: list[str] = []
    read_only: list[str] = []
    for file in files:
        table = file.document.sandbox
        profile = profile if table.profile is None else _profile(table.profile, _at(file, "profile"))
        memory = memory if table.memory is None else parse_memory(table.memory, _at(file, "memory"))
        cpus = cpus if table.cpus is None else _cpus(table.cpus, _at(file, "cpus"))
        pids = pids if table.pids is None else _pids(table.pids, _at(file, "pids"))
        for name, value in table.env.items():
            environment[_variable(name, _at(file, "env").item(name))] = _value(
                value, _at(file, "env").item(name)
            )
        passed += _each(table.pass_env, _at(file, "pass_env"), _variable)
        unmask += _each(table.unmask, _at(file, "unmask"), _inner_path)
        protect += _each(table.protect, _at(file, "protect"), _inner_path)
        read_only += _each(
            table.read_only, _at(file, "read_only"), lambda text, place: _existing(text, place, home)
        )
    if overrides.profile is not None:
        profile = _profile(overrides.profile, option("--profile"))
    if overrides.memory is not None:
        memory = parse_memory(overrides.memory, option("--memory"))
    if overrides.cpus is not None:
        cpus = _cpus(overrides.cpus, option("--cpus"))
    if overrides.pids is not None:
        pids = _pids(overrides.pids, option("--pids"))
    for name, given in overrides.environment:
        _variable(name, option("--env"))
        if given is None:
            passed.append(name)
            environment.pop(name, None)
        else:
            environment[name] = _value(given, option("--env"))
    unmask += _each(overrides.unmask, option("--unmask"), _inner_path)
    return Settings(
        made=runtime.made(
            files, runtime=overrides.runtime, image=overrides.image, workspace=overrides.workspace
        ),
        profile=profile,
        memory_bytes=memory,
        cpus=cpus,
        pids=pids,
        environment=tuple(environment.items()),
        pass_environment=_unique(passed),
        unmask=_unique(unmask),
        protect=_unique(protect),
        read_only=_unique(read_only),
    )


def parse_memory(text: str, place: Place) -> int:
    """Bytes of "512m", "8g", "8GiB" …"""
    lower = text.strip().lower()
    number = lower.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = lower[len(number) :].removesuffix("b").removesuffix("i")
    expected = f'a number with k, m, g or t, at least "{_LEAST_MEMORY_BYTES >> 20}m", as in "8g"'
    try:
        size = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise place.error("this is no size of memory", expected=expected, found=text) from None
    if not math.isfinite(size) or not _LEAST_MEMORY_BYTES <= size < 1 << 60:
        raise place.error("this size of memory is out of range", expected=expected, found=text)
    return int(size)


def host_path(text: str, place: Place, home: str) -> str:
    """An absolute path of the host, `~/` expanded."""
    path = posixpath.join(home, text[2:]) if text.startswith("~/") else text
    normal = posixpath.normpath(path)
    if not path.startswith("/") or normal in ("/", "//") or "\0" in path:
        raise place.error("this is no path of the host", expected='an absolute path, or "~/…"', found=text)
    return normal


def _existing(text: str, place: Place, home: str) -> str:
    path = host_path(text, place, home)
    if not os.path.exists(path):
        raise place.error(
            "this path does not exist here",
            expected="a directory or file of this host",
            found=text,
            resolution="remove it, or create it",
        )
    return path


def _at(file: Loaded, key: str) -> Place:
    return place_of(file, "sandbox", key)


def _profile(name: str, place: Place) -> str:
    if name not in PROFILES:
        raise place.error(
            "unknown profile", expected=", ".join(PROFILES), found=name, resolution=nearest(name, PROFILES)
        )
    return name


def _cpus(value: float, place: Place) -> float:
    if not 0.01 <= value <= 4096:  # also refuses nan
        raise place.error("this number of processors is out of range", expected="0.01 to 4096", found=value)
    return float(value)


def _pids(value: int, place: Place) -> int:
    if not _LEAST_PIDS <= value <= 1 << 22:  # PID_MAX_LIMIT, proc(5)
        raise place.error(
            "this number of processes is out of range", expected=f"{_LEAST_PIDS} to {1 << 22}", found=value
        )
    return value


def _variable(name: str, place: Place) -> str:
    if not name or not _NAME_CHARACTERS.issuperset(name) or name[0].isdigit():
        raise place.error(
            "this is no name of an environment variable", expected="letters, digits and _", found=name
        )
    return name


def _value(text: str, place: Place) -> str:
    if "\0" in text:
        raise place.error(
            "an environment variable cannot hold a NUL", expected="a text without it", found=text
        )
    return text


def _inner_path(text: str, place: Place) -> str:
    parts = text.split("/")
    if not text or text.startswith(("/", "~")) or ".." in parts or "\0" in text:
        raise place.error(
            "this is no path inside the workspace",
            expected='a path relative to it, without "..", as in "tests/.env"',
            found=text,
        )
    return text.rstrip("/")


def _each(texts: Iterable[str], place: Place, judge: Callable[[str, Place], str]) -> list[str]:
    return [judge(text, place.item(index)) for index, text in enumerate(texts)]


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
