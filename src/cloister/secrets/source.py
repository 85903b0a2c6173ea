"""Where a credential's value is: `scheme:argument`, parsed, and fetched by the scheme's module.

Rule 1: fetching blocks, has a deadline, and raises only `CredentialError`, which names the credential and the source,
        and never shows a value or what a program printed to its standard output. `brief` may be read in the sandbox;
        where exactly the secret is, and what a program said, stand in `details`, for the user alone.
Rule 2: a value is UTF-8 text in one line; what is empty, has several lines or a NUL is no value. A key in PEM and the
        JSON of AWS's keys may have lines.
Rule 3: nothing that the sandbox can write is read or run for a secret: `Context.untrusted`.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

from cloister.errors import CredentialError
from cloister.secret import Secret
from cloister.types import AwsSignature, Credential

if TYPE_CHECKING:
    from cloister.system.proc import Running  # starting programs is for those who fetch

DEADLINE_S = 30.0
VALUE_LIMIT_BYTES = 64 * 1024
TEXT_LIMIT_CHARACTERS = 4096
# Scheme → module of this package, a `Kind`.
SOURCES: Mapping[str, str] = {
    "env": "environment",
    "file": "file",
    "exec": "program",
    "op": "tools",
    "gh": "tools",
    "keychain": "tools",
    "pass": "tools",
    "aws-sts": "aws",
    "github-app": "github_app",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A parsed source. `argument` is what stands behind the colon."""

    scheme: str
    argument: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.argument}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """For whom a value is fetched, and with what. `environ` is the user's environment.

    `untrusted` are real paths of directories that the sandbox can write; `known` gives what must not be shown of a
    program's errors; `until` is on the monotonic clock.
    """

    name: str
    environ: Mapping[str, str]
    deadline_s: float = DEADLINE_S
    until: float = 0.0
    several_lines: bool = False
    upstream_ca: tuple[str, ...] = ()  # further roots, as paths (GitHub Enterprise behind a private CA)
    untrusted: tuple[str, ...] = ()
    known: Callable[[], tuple[Secret, ...]] = tuple
    running: Running | None = None
    platform: str = sys.platform
    clock: Callable[[], float] = time.time

    def left_s(self) -> float:
        """What is left of the deadline. TimeoutError if that is nothing."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def is_untrusted(self, path: str) -> bool:
        """Whether the sandbox can write there, or could have placed what `path` leads to."""
        real = os.path.realpath(path)
        return any(f"{place}/".startswith(f"{root}/") for root in self.untrusted for place in (path, real))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Value:
    """What was fetched. `expires_at`: seconds of the epoch. `parts`: what of it is confidential by itself."""

    secret: Secret
    expires_at: float | None = None
    parts: tuple[Secret, ...] = ()

    @property
    def confidential(self) -> tuple[Secret, ...]:
        """What redaction looks for."""
        return (self.secret, *self.parts)


class SourceError(ValueError):
    """A source's text is wrong. `expected` says what would be right."""

    def __init__(self, reason: str, expected: str) -> None:
        super().__init__(f"{reason}; expected {expected}")
        self.reason = reason
        self.expected = expected


class Kind(Protocol):
    """What the module of a scheme offers."""

    def check(self, source: Source) -> None:
        """SourceError if the argument is wrong."""

    def fetch(self, source: Source, context: Context) -> Value:
        """The value. Blocks; CredentialError, TimeoutError or OSError."""


def parse(text: str) -> Source:
    """`scheme:argument`; SourceError says what is wrong with it."""
    scheme, colon, argument = text.partition(":")
    if not colon or scheme not in SOURCES:
        known = ", ".join(f"{name}:" for name in SOURCES)
        raise SourceError(_unknown(scheme, colon), f"one of {known} and where the secret is")
    if not text.isprintable() or len(text) > TEXT_LIMIT_CHARACTERS:
        raise SourceError(
            "a source is printable text in one line", f"at most {TEXT_LIMIT_CHARACTERS} characters"
        )
    source = Source(scheme=scheme, argument=argument)
    _kind(source).check(source)
    return source


def value_of(credential: Credential, context: Context) -> Value:
    """The value of a credential. Blocks; CredentialError."""
    try:
        source = parse(credential.source)
    except SourceError as error:
        raise CredentialError(
            f'credential "{credential.name}": {error.reason}',
            details=f"source: {credential.source!r}",
            resolution=f"write {error.expected}",
        ) from None
    signs = any(isinstance(binding.injection, AwsSignature) for binding in credential.bindings)
    value = fetch(source, replace(context, several_lines=True) if signs else context)
    if not signs:
        return value
    from cloister.secrets import aws  # deferred: it needs this module

    return aws.as_keys(value, source, context)


def fetch(source: Source, context: Context) -> Value:
    """The value. Blocks; CredentialError."""
    if not context.until:
        context = replace(context, until=time.monotonic() + context.deadline_s)
    try:
        return _kind(source).fetch(source, context)
    except TimeoutError:
        reason = f"it did not end within {context.deadline_s:g} s, and was stopped"
        raise failed(source, context, reason) from None
    except OSError as error:
        raise failed(source, context, error.strerror or type(error).__name__) from None


def failed(
    source: Source, context: Context, reason: str, *, said: str = "", resolution: str = ""
) -> CredentialError:
    """The error for a source that gives no value. `said`: a program's last words, with secrets masked."""
    return CredentialError(
        f'credential "{context.name}" cannot be had from {source.scheme}: {reason}',
        details="\n".join([f"source: {source}", *([said] if said else [])]),
        resolution=resolution or f"mend that, then try: cloister secret test {context.name}",
    )


def checked(content: bytes, source: Source, context: Context) -> Secret:
    """A value, one line's end at its end dropped. CredentialError if it is none."""
    if len(content) > VALUE_LIMIT_BYTES:
        raise failed(source, context, f"the value is longer than {VALUE_LIMIT_BYTES >> 10} KiB")
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if not content.strip():
        raise failed(source, context, "the value is empty")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise failed(source, context, "the value is not UTF-8 text") from None
    if "\0" in text:
        raise failed(source, context, "there is a NUL in the value")
    if not context.several_lines and any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        lines = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        what = f"the value has {lines} lines" if lines > 1 else "there are control characters in the value"
        raise failed(source, context, f"{what}; expected text in one line")
    return Secret(context.name, content)


def _unknown(scheme: str, colon: str) -> str:
    import difflib

    near = difflib.get_close_matches(scheme, SOURCES, n=1)
    if not colon:
        return "this names no source of a secret"
    return f'there is no source "{scheme[:40]}:"' + (f' (did you mean "{near[0]}:"?)' if near else "")


def _kind(source: Source) -> Kind:
    # By name, for these modules need this one. The cast is what a module is to mypy.
    return cast(Kind, importlib.import_module(f"cloister.secrets.{SOURCES[source.scheme]}"))
