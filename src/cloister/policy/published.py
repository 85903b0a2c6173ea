"""Published ports: which port of the sandbox is reachable at which port of this machine's loopback.

Rule 1: a port of the sandbox on which the gateway itself listens is never published: whoever connects would use
        the gateway, with its credentials, as if they were the sandbox.
Rule 2: no I/O; whether the port is free is asked by `network/publish.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloister.errors import UntrustedInputError
from cloister.policy.names import parse_port
from cloister.values import dataclass

# On every address of the sandbox but the proxy's, which is on its loopback (network/plumb.py).
GATEWAY_PORTS = frozenset({53, 80, 443, 3128})
EXPECTED = 'a port, as in 3000, or "HOST:SANDBOX", as in "8080:3000" or "auto:3000" (the next free one)'
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """`sandbox` is reachable at `host`, or, if `auto`, at the first free one from there on."""

    host: int
    sandbox: int
    auto: bool = False

    def __str__(self) -> str:
        if self.auto:
            return f"{AUTO}:{self.sandbox}"
        return str(self.host) if self.host == self.sandbox else f"{self.host}:{self.sandbox}"

    def document(self) -> dict[str, object]:
        """The plan's entry."""
        return {"host": self.host, "sandbox": self.sandbox, **({"auto": True} if self.auto else {})}


class PortError(ValueError):
    """A port that a user wrote is wrong. `expected` says what to write instead."""

    def __init__(self, reason: str, *, expected: str = EXPECTED) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expected = expected


def parse_published(text: str) -> PublishedPort:
    """`"3000"`, `"8080:3000"` or `"auto:3000"`. PortError tells what is wrong."""
    host, colon, sandbox = text.partition(":")
    inner = _port(sandbox if colon else host)
    if inner in GATEWAY_PORTS:
        raise PortError(
            f"port {inner} of the sandbox is the gateway's: no server of yours can listen there",
            expected='a server on another port of the sandbox, as in "8080:8080"',
        )
    if colon and host == AUTO:
        return PublishedPort(host=inner, sandbox=inner, auto=True)
    return PublishedPort(host=_port(host), sandbox=inner)


def collision(ports: Iterable[PublishedPort]) -> PublishedPort | None:
    """The first port that wants a port of this machine which one before it has."""
    taken: dict[int, PublishedPort] = {}
    for port in ports:
        if port.auto:
            continue
        if taken.setdefault(port.host, port) != port:
            return port
    return None


def parse_document(entries: object) -> tuple[PublishedPort, ...]:
    """The plan's "ports". ValueError, KeyError or TypeError if it is damaged."""
    if not isinstance(entries, list):
        raise TypeError('"ports" in the plan is not a list')
    found = tuple(
        PublishedPort(host=int(entry["host"]), sandbox=int(entry["sandbox"]), auto=entry.get("auto") is True)
        for entry in entries
    )
    if any(port.sandbox in GATEWAY_PORTS for port in found):
        raise ValueError('"ports" in the plan holds a port of the gateway\'s')
    return found


def _port(text: str) -> int:
    try:
        return parse_port(text)
    except UntrustedInputError:
        raise PortError(f"{ascii(text[:24])[1:-1] or 'nothing'} is no port") from None
