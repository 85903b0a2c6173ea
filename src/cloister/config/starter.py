"""The starter cloister.toml that `cloister init` writes, with hints for the languages of the project."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language that a file in the project's directory gives away, and the presets that it works with."""

    name: str
    markers: tuple[str, ...]
    presets: tuple[str, ...]


_LANGUAGES = (
    Language(name="Node", markers=("package.json",), presets=("npm",)),
    Language(name="Python", markers=("pyproject.toml", "requirements.txt", "setup.py"), presets=("pypi",)),
    Language(name="Rust", markers=("Cargo.toml",), presets=("crates",)),
    Language(name="Go", markers=("go.mod",), presets=("go",)),
    Language(name="Elixir", markers=("mix.exs",), presets=("hex",)),
    Language(name="Ruby", markers=("Gemfile",), presets=("rubygems",)),
    Language(name="Java", markers=("pom.xml",), presets=("maven",)),
    Language(name="Gradle", markers=("build.gradle", "build.gradle.kts"), presets=("maven", "gradle")),
    Language(name="PHP", markers=("composer.json",), presets=("packagist", "github")),
)

_TEMPLATE = """\
# What an agent in this project's sandbox may do. What it comes to: cloister policy show
# This file counts only after you have adopted it: cloister trust

[sandbox]
# "offline": nothing. "registries": package registries. "agent": registries, model APIs, and what stands below.
profile = "agent"
# memory = "8g"
# cpus = 4
# env = {{ NODE_ENV = "development" }}
# unmask = ["tests/.env"]        # files that look like secrets are hidden, but for these

[network]
# "name", "*.suffix" (not the suffix itself), "host:port", "tcp://host:port". Everything else is refused.
allow = [
    # "api.example.com",
    # "tcp://db.example.com:5432",
]
# Registries come with the profile. Presets beyond it stand here, as "github"; see: cloister policy show
presets = [{presets}]
# deny = ["telemetry.example.com"]

# A secret that stays outside: the sandbox sees a placeholder, the gateway puts the value into requests to its hosts.
# [[credential]]
# name = "github"
# source = "gh:"                   # or env:NAME, file:~/PATH, op://…, keychain:…, pass:…, exec:…, github-app:OWNER/REPO
# preset = "github"
# repositories = ["acme/widget"]   # for these alone
# [[credential]]
# name = "api"
# source = "env:EXAMPLE_API_KEY"
# hosts = ["api.example.com"]
# inject = "bearer"                # or "header:X-Api-Key", "basic:USER", "query:key"
# env = "EXAMPLE_API_KEY"

# [git]
# push = ["refs/heads/agent/*"]    # nothing can be pushed otherwise
"""


def found_languages(file_names: Collection[str]) -> tuple[Language, ...]:
    """The languages whose marker files are among `file_names`."""
    return tuple(language for language in _LANGUAGES if any(m in file_names for m in language.markers))


def starter(languages: Collection[Language]) -> str:
    """The text of the starter file."""
    presets = dict.fromkeys(preset for language in languages for preset in language.presets)
    return _TEMPLATE.format(presets=", ".join(f'"{name}"' for name in presets))
