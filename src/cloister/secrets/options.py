"""Read `?name=value&name=value` behind a source's argument. Values are percent-decoded; "+" stays what it is."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from urllib.parse import unquote

from cloister.secrets.source import SourceError


def options(text: str, known: Collection[str]) -> dict[str, str]:
    """Name → value. SourceError for what is unknown, empty or there twice."""
    found: dict[str, str] = {}
    for part in text.split("&") if text else ():
        name, equals, value = part.partition("=")
        expected = f"one of {', '.join(f'{each}=…' for each in known)}"
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            raise SourceError(f'there is no option "{name}"{hint}', expected)
        if not equals or not value:
            raise SourceError(f'the option "{name}" has no value', f"{name}=…")
        if name in found:
            raise SourceError(f'the option "{name}" is there twice', f"one {name}=…")
        found[name] = unquote(value)
        if not found[name].isprintable():
            raise SourceError(f'the option "{name}" is not printable text', f"{name}=…")
    return found
