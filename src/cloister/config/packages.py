"""The [packages] table: whether installing may run what it installs, and what package managers are told of it.

Rule 1: without a word of the configuration, installing runs no code of packages where their manager can be told so.
Rule 2: these are defaults against what is done unawares, not walls: a command line may say otherwise. The walls
        are the sandbox's.
Rule 3: what a project opts out of is not set to the opposite but left alone, so that its own files may be stricter;
        what an image has set is named in `unset` and `files`, for runtimes that start from one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloister.config.load import Loaded
from cloister.config.place import place_of

_DATA = os.path.join(os.path.dirname(__file__), "package_managers.toml")
INSTALL_SCRIPTS, SDISTS, MINIMUM_AGE = "install_scripts", "sdists", "minimum_age_days"
_MOST_DAYS = 3650
_MINUTES_A_DAY = 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """What one package manager is told, under one key of [packages]; `key` is empty for what always holds."""

    tool: str
    key: str
    environment: Mapping[str, str]
    files: Mapping[str, str]
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """The merged [packages] tables. `minimum_age_days` is 0 where nothing is said."""

    install_scripts: bool
    sdists: bool
    minimum_age_days: int
    defaults: tuple[Default, ...]

    def document(self) -> dict[str, object]:
        """The plan's "packages" value."""
        environment = self.environment()
        return {
            "install_scripts": self.install_scripts,
            "sdists": self.sdists,
            "minimum_age_days": self.minimum_age_days,
            "environment": environment,
            "files": self.files(),
            "unset": sorted({name for one in self.defaults for name in one.environment} - set(environment)),
        }

    def environment(self) -> dict[str, str]:
        """The variables that hold."""
        days = self.minimum_age_days
        return {
            name: value.replace("{days}", str(days)).replace("{minutes}", str(days * _MINUTES_A_DAY))
            for one in self.defaults
            if self._holds(one)
            for name, value in one.environment.items()
        }

    def files(self) -> dict[str, str]:
        """The files of /etc; one that does not hold is empty, in case that the image has it."""
        return {
            path: text if self._holds(one) else ""
            for one in self.defaults
            for path, text in one.files.items()
        }

    def _holds(self, one: Default) -> bool:
        told = {
            "": True,
            INSTALL_SCRIPTS: not self.install_scripts,
            SDISTS: not self.sdists,
            MINIMUM_AGE: self.minimum_age_days > 0,
        }
        return told[one.key]


def packages_of(files: Sequence[Loaded]) -> Packages:
    """Merge them: what the project says wins over the user's own, as in [sandbox]."""
    scripts, sdists, days = False, False, 0
    for file in files:
        table = file.document.packages
        scripts = scripts if table.install_scripts is None else table.install_scripts
        sdists = sdists if table.sdists is None else table.sdists
        if table.minimum_age_days is not None:
            days = table.minimum_age_days
            if not 0 <= days <= _MOST_DAYS:
                raise place_of(file, "packages", MINIMUM_AGE).error(
                    "this age is out of range", expected=f"0 to {_MOST_DAYS} days", found=days
                )
    return Packages(install_scripts=scripts, sdists=sdists, minimum_age_days=days, defaults=load_defaults())


def load_defaults() -> tuple[Default, ...]:
    """What is known of package managers, from package_managers.toml."""
    with open(_DATA, "rb") as file:
        raw = tomllib.load(file)["default"]
    return tuple(
        Default(
            tool=entry["tool"],
            key=entry.get("key", ""),
            environment=entry["environment"],
            files=entry.get("files", {}),
            meaning=entry["meaning"],
        )
        for entry in raw
    )
