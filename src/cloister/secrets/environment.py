"""`env:NAME`: a variable of the environment in which `cloister` was started."""

from __future__ import annotations

import re

from cloister.secrets.source import Context, Source, SourceError, Value, checked, failed

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def check(source: Source) -> None:
    """SourceError unless it is a name."""
    if not _NAME.fullmatch(source.argument):
        raise SourceError("this names no environment variable", 'a name, as in "env:GITHUB_TOKEN"')


def fetch(source: Source, context: Context) -> Value:
    """The variable's value."""
    value = context.environ.get(source.argument)
    if value is None:
        raise failed(
            source,
            context,
            f"the environment in which cloister was started has no {source.argument}",
            resolution=f"export {source.argument}, then start the sandbox anew",
        )
    return Value(secret=checked(value.encode("utf-8", "surrogateescape"), source, context))
