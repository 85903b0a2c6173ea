"""Parse one configuration file; every fault is a ConfigurationError that names file, line, key and a way on.

Rule 1: a text that is not wholly valid yields nothing.
Rule 2: keys that only the user's own file may hold are refused in a project's file, which an agent can write.
Rule 3: values are shown escaped: the text may come from an agent.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cloister.config.locate import Path, line_of, lines
from cloister.config.model import (
    USER_ONLY,
    CredentialTable,
    Document,
    Git,
    Network,
    NetworkRule,
    Packages,
    Sandbox,
    ServiceTable,
    Ssh,
    Table,
)
from cloister.config.wording import quoted, visible
from cloister.errors import ConfigurationError

NAMED = "NAME"  # a table of any name
_TABLES: dict[tuple[str, ...], type[Table]] = {
    (): Document,
    ("sandbox",): Sandbox,
    ("network",): Network,
    ("network", "rule"): NetworkRule,
    ("credential",): CredentialTable,
    ("git",): Git,
    ("ssh",): Ssh,
    ("packages",): Packages,
    ("services", NAMED): ServiceTable,
}
_TOML_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)$")


class Level(Enum):
    """Whose file it is."""

    USER = "user"
    PROJECT = "project"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A configuration text and where it came from."""

    path: str
    text: str
    level: Level
    lines: Mapping[Path, int] = field(default_factory=dict, repr=False)

    def error(
        self, path: Path, reason: str, *, expected: str = "", found: object = None, resolution: str = ""
    ) -> ConfigurationError:
        """A fault at `path`, ready to be raised."""
        details = [f"expected: {expected}"] if expected else []
        details += [f"found: {quoted(found)}"] if found is not None else []
        return ConfigurationError(
            f"{visible(self.path)}:{line_of(self.lines, path)}: {reason}",
            details="\n".join(details),
            resolution=resolution,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A valid document with its source, for errors that later steps find."""

    document: Document
    source: Source


def load(path: str, text: str, level: Level) -> Loaded:
    """Parse and validate the shape of one file."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, str(error)) from None
    except ValueError:  # tomllib lets int()'s limit of digits through
        raise ConfigurationError(
            f"{visible(path)}:1: the file holds a number that is too long to be read",
            resolution="search it for a line with thousands of digits",
        ) from None
    except RecursionError:
        raise ConfigurationError(f"{visible(path)}:1: the file is nested too deeply") from None
    source = Source(path=path, text=text, level=level, lines=lines(text))
    if level is Level.PROJECT:
        _refuse_user_only(raw, source)
    try:
        document = Document.model_validate(raw)
    except ValidationError as error:
        raise _shape_error(source, error.errors(include_url=False)) from None
    return Loaded(document=document, source=source)


def nearest(name: str, known: Iterable[str]) -> str:
    """A question for people: which known name was meant. Empty if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else ""


def _syntax_error(path: str, text: str, message: str) -> ConfigurationError:
    found = _TOML_LINE.search(message)
    line = int(found[1]) if found else text.count("\n") + 1  # "(at end of document)"
    return ConfigurationError(
        f"{visible(path)}:{line}: this is not valid TOML: {visible(_TOML_LINE.sub('', message))}",
        resolution="correct the line; https://toml.io describes the format",
    )


def _refuse_user_only(raw: Mapping[str, object], source: Source) -> None:
    for table, model in _TABLES.items():
        for name in model.model_fields:
            if _words(model, name).get("where") == USER_ONLY and _holds(raw, (*table, name)):
                raise source.error(
                    (*table, name),
                    f'key "{name}" of {_table_name(table)} is the user\'s alone, as a project could redirect '
                    "names with it",
                    expected="it in your own configuration file",
                    resolution="move it to ~/.config/cloister/config.toml",
                )


def _model(table: tuple[str, ...]) -> type[Table] | None:
    return _TABLES.get((table[0], NAMED) if len(table) == 2 and table[0] == "services" else table)


def _holds(raw: object, path: Path) -> bool:
    for key in path:
        if not isinstance(raw, dict) or key not in raw:
            return False
        raw = raw[key]
    return True


def _shape_error(source: Source, faults: list[ErrorDetails]) -> ConfigurationError:
    # An unknown key explains a missing one beside it, so it goes first.
    first, *others = sorted(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    error = _fault(source, first)
    if others:
        error.details += f"\nand {len(others)} more: " + "; ".join(
            _fault(source, other).brief for other in others
        )
    return error


def _fault(source: Source, fault: ErrorDetails) -> ConfigurationError:
    path: Path = fault["loc"]
    table = tuple(part for part in path[:-1] if isinstance(part, str))
    model = _model(table)
    key = str(path[-1])
    where = _table_name(table)
    if fault["type"] == "extra_forbidden" and model is not None:
        known = list(model.model_fields)
        what = "table" if isinstance(fault["input"], (dict, list)) and not table else "key"
        return source.error(
            path,
            f"unknown {what} {quoted(key)} in {where}",
            expected=", ".join(known),
            resolution=nearest(key, known) or f"remove {quoted(key)}",
        )
    if fault["type"] == "missing":
        return source.error(path, f'key "{key}" is missing in {where}', resolution=f'add {key} = "…"')
    name, expected = _expectation(path)
    found = fault["input"]
    is_lone = "a list of texts" in expected and isinstance(found, str)
    return source.error(
        path,
        f"wrong value for key {quoted(name)}",
        expected=expected,
        found=found,
        resolution=f"write {name} = [{quoted(found)}]" if is_lone else "",
    )


def _expectation(path: Path) -> tuple[str, str]:
    """The key that a fault is in, and the words for its type. The fault may be inside a list or a table."""
    names = tuple(part for part in path if isinstance(part, str))
    for length in range(len(names), 0, -1):
        model = _model(names[: length - 1])
        if model is None or names[length - 1] not in model.model_fields:
            continue
        key = names[length - 1]
        words = _words(model, key)
        inside = len(names) > length or isinstance(path[-1], int)
        kind = words.get("kind", "table")
        singular = kind.rpartition(" of ")[2].removesuffix("s")
        choices = model.model_fields[key].description or ""
        return (
            key,
            f"{'an' if singular[0] in 'aeiou' else 'a'} {singular}"
            if inside
            else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}. {choices}".rstrip(". ")
            + ("." if choices else ""),
        )
    return str(path[-1]), "another value"


def _words(model: type[Table], name: str) -> dict[str, str]:
    extra = model.model_fields[name].json_schema_extra
    return {key: str(value) for key, value in extra.items()} if isinstance(extra, dict) else {}


def _table_name(table: tuple[str, ...]) -> str:
    if not table:
        return "the file"
    name = ".".join(table)
    return f"[[{name}]]" if table in (("network", "rule"), ("credential",)) else f"[{name}]"
