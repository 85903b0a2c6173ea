"""`exec:ARGV…`: a program of the user's that prints a secret: as text, or as JSON with its end.

The words are split as a shell would (or are a JSON list), and no shell runs. JSON is {"value": "…", "expires_at":
SECONDS or RFC 3339 time, "expires_in": SECONDS}; for AWS what `aws configure export-credentials` prints.
"""

from __future__ import annotations

import json
import shlex
from datetime import datetime

from cloister.secrets.run import output
from cloister.secrets.source import Context, Source, SourceError, Value, checked, failed

_EXPECTED = 'a program and its arguments, as in "exec:my-vault read token"'


def check(source: Source) -> None:
    """SourceError unless it is a command line whose program can be found from anywhere."""
    words(source)


def words(source: Source) -> list[str]:
    """The command line. SourceError."""
    text = source.argument.strip()
    try:
        found = json.loads(text) if text.startswith("[") else shlex.split(text)
    except ValueError as error:
        raise SourceError(f"the command line cannot be read ({error})", _EXPECTED) from None
    if not found or not all(isinstance(word, str) for word in found) or not found[0]:
        raise SourceError("this names no program", _EXPECTED)
    if any("\0" in word for word in found):
        raise SourceError("there is a NUL in the command line", _EXPECTED)
    if "/" in found[0] and not found[0].startswith(("/", "~/")):
        raise SourceError(
            f'"{found[0]}" depends on the current directory', "an absolute path, or a name on PATH"
        )
    return [str(word) for word in found]


def fetch(source: Source, context: Context) -> Value:
    """What the program says."""
    content = output(words(source), source, context)
    found = _json(content)
    if found is None or (context.several_lines and "value" not in found):
        return Value(secret=checked(content, source, context))
    try:
        value = found["value"]
        if not isinstance(value, str):
            raise TypeError
        expires_at = expiry(found, now=context.clock())
        encoded = value.encode()
    except (ValueError, KeyError, TypeError, OverflowError):
        expected = '{"value": "…", "expires_at": …} (or "expires_in")'
        raise failed(source, context, f"its JSON is not {expected}") from None
    return Value(secret=checked(encoded, source, context), expires_at=expires_at)


def _json(content: bytes) -> dict[str, object] | None:
    """The object that was printed; None if it is some text."""
    if not content.lstrip().startswith(b"{"):
        return None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def expiry(found: dict[str, object], *, now: float) -> float | None:
    """`expires_at` (seconds or RFC 3339) or `expires_in` (seconds) as seconds of the epoch. ValueError, TypeError."""
    at, within = found.get("expires_at"), found.get("expires_in")
    if isinstance(at, str):
        return moment(at)
    if _is_number(at):
        return float(at)  # type: ignore[arg-type]  # `_is_number` has looked
    if at is None and _is_number(within):
        return now + float(within)  # type: ignore[arg-type]
    if at is not None or within is not None:
        raise TypeError("an expiry is a number or a time")
    return None


def moment(text: str) -> float:
    """An RFC 3339 time as seconds of the epoch. ValueError, also for one without a zone: whose clock would it be?"""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("the time has no zone")
    return found.timestamp()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
