"""Judge what the container says to the host: shapes, sizes, and what may stand on a terminal.

Rule 1: no I/O. What does not fit is a FrameError, and ends the channel: our own other half would not say it.
"""

from __future__ import annotations

from cloister.audit.log import Event
from cloister.outpost.frames import FrameError, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TEXT_LIMIT = 4096
_CERTIFICATE_LIMIT = 8192
_KINDS = frozenset({"dns", "connect", "request", "publish", "refuse", "alarm", "confirm", "sign"})
_NUMBERS = frozenset({"port", "status", "sent_bytes", "received_bytes", "duration_ms"})
_TEXTS = frozenset(Event.__slots__) - _NUMBERS
# What it may say to the session, and which texts go with it.
_SAID: Mapping[str, tuple[str, ...]] = {
    "ready": (),
    "pong": (),
    "tell": ("text",),
    "alarm": ("text",),
    "failed": ("text",),
    "holder-ended": ("text",),
    "ask": ("name", "text"),
    "settled": ("name",),
    "said": (),
}


def printable(text: str) -> str:
    """Text for a terminal: nothing in it moves a cursor. Lines stay lines."""
    return "".join(
        char if char == "\n" or char.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for char in text[:TEXT_LIMIT]
    )


def number(message: Message, name: str) -> int:
    """A number that is none of a negative kind."""
    found = message.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 53:
        raise FrameError(f"{name!r} is no number")
    return found


def text(message: Message, name: str) -> str:
    """A text."""
    found = message.get(name)
    if not isinstance(found, str):
        raise FrameError(f"{name!r} is no text")
    return found[:TEXT_LIMIT]


def said(message: Message) -> Message:
    """A message for the session, with what belongs to it and nothing else."""
    inner = message.get("message")
    operation = inner.get("op") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or not isinstance(operation, str) or operation not in _SAID:
        raise FrameError(f"the session cannot be told {operation!r:.40}")
    found: Message = {"op": operation}
    if operation == "said":
        return {**found, "number": inner.get("number"), "answer": inner.get("answer")}
    return {**found, **{name: printable(text(inner, name)) for name in _SAID[operation]}}


def answer(value: object) -> dict[str, object]:
    """What the gateway answers to another command of the user (gateway/control_server.py), fit for a terminal."""
    if not isinstance(value, dict):
        raise FrameError("the answer is no object")
    return {str(key)[:100]: _shown(one, depth=3) for key, one in value.items()}


def _shown(value: object, *, depth: int) -> object:
    match value:
        case str():
            return printable(value)
        case list() if depth:
            return [_shown(one, depth=depth - 1) for one in value]
        case dict() if depth:
            return {printable(str(key)): _shown(one, depth=depth - 1) for key, one in value.items()}
        case bool() | int() | float() | None:
            return value
        case _:
            raise FrameError("the answer is too deep")


def event(message: Message) -> Event:
    """A line of the audit log. `start`, `end` and `quarantine` are the session's to write."""
    fields = message.get("event")
    if not isinstance(fields, dict) or fields.get("kind") not in _KINDS:
        raise FrameError("a line of no known kind")
    for name, value in fields.items():
        if name in _NUMBERS:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            fits = name in _TEXTS and isinstance(value, str)
        if not fits:
            raise FrameError(f"a line with {name!r:.40}")
    return Event(**fields)


def certificate(message: Message) -> bytes:
    """The sandbox's CA, as PEM: one certificate, of printable ASCII."""
    pem = message.get("pem")
    if (
        not isinstance(pem, str)
        or len(pem) > _CERTIFICATE_LIMIT
        or not pem.isascii()
        or not pem.startswith("-----BEGIN CERTIFICATE-----\n")
        or not pem.endswith("-----END CERTIFICATE-----\n")
        or pem.count("-----BEGIN") != 1
        or not all(char.isprintable() or char == "\n" for char in pem)
    ):
        raise FrameError("the authority is no certificate")
    return pem.encode()
