"""Parse host patterns of rules, and match canonical hosts against them.

Rule 1: users write `name`, `*.suffix`, `host:port` and `tcp://host:port`; never a regular expression.
Rule 2: `*.suffix` covers every depth below the suffix and not the apex; it needs at least two labels and must
        not be a public suffix, as `*.com` or `*.github.io` is no restriction.
Rule 3: `Reach.UNSAFE_ANY` cannot be written; only the profile `full` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import UntrustedInputError
from cloister.policy.names import parse_host, parse_port
from cloister.policy.suffixes import WELL_KNOWN_PUBLIC_SUFFIXES
from cloister.types import DEFAULT_WEB_PORTS, Host, HostPattern, Reach, Transport

DNS_PORT = 53
# RFC 6761, 6762, 8375, 7686, ICANN's `.internal`, and what home routers use: never a public name.
_NON_PUBLIC_TEXT = """
alt arpa corp example home internal intranet invalid lan local localdomain localhost onion private test
"""
_NON_PUBLIC_TOP_LEVELS = frozenset(_NON_PUBLIC_TEXT.split())


class PatternError(ValueError):
    """A pattern that a user wrote is wrong. The text says why; `expected` says what to write instead."""

    def __init__(self, reason: str, *, expected: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.expected = expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A parsed entry of `allow` or `deny`. `ports` is empty if the entry names none."""

    pattern: HostPattern
    ports: frozenset[int]
    transport: Transport

    @property
    def grant_ports(self) -> frozenset[int]:
        """The ports that the entry opens when it stands in `allow`."""
        return self.ports or DEFAULT_WEB_PORTS


def parse_destination(text: str) -> Destination:
    """`name`, `*.suffix`, `host:port` or `tcp://host:port`. PatternError tells what is wrong."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "tcp":
        raise PatternError(
            f"a scheme ({_shown(scheme)}://) does not belong in a host pattern",
            expected='a host without scheme, as in "api.example.com" or "api.example.com:8443"',
        )
    transport = Transport.TCP if separator else Transport.WEB
    address = rest if separator else text
    if "/" in address:
        raise PatternError(
            "a path does not belong in a host pattern",
            expected="a host alone; paths belong in a [[network.rule]]",
        )
    host, colon, port_text = address.rpartition(":") if ":" in address else (address, "", "")
    if transport is Transport.TCP and not colon:
        raise PatternError(
            "tcp:// needs a port", expected='"tcp://host:port", as in "tcp://db.example.com:5432"'
        )
    pattern = parse_pattern(host)
    ports = frozenset({_parse_rule_port(port_text)}) if colon else frozenset[int]()
    return Destination(pattern=pattern, ports=ports, transport=transport)


def parse_pattern(text: str) -> HostPattern:
    """`name` or `*.suffix`, without port."""
    if text == "*":
        raise PatternError(
            '"*" would allow every host',
            expected='names, as in "api.example.com", or the profile "full" if every public host is meant',
        )
    reach, name = (Reach.SUBDOMAINS, text[2:]) if text.startswith("*.") else (Reach.EXACT, text)
    if "*" in name:
        raise PatternError(
            '"*" may only stand for whole labels in front', expected='"*.example.com" or an exact name'
        )
    try:
        host = parse_host(name)
    except UntrustedInputError as error:
        raise PatternError(str(error), expected='a DNS name, as in "api.example.com"') from None
    if reach is Reach.SUBDOMAINS and is_public_suffix(host.name):
        raise PatternError(
            f'anybody can register a name below "{host.name}"',
            expected=f'a wildcard below a name of your own, as in "*.example.{host.name}"',
        )
    return HostPattern(reach=reach, name=host.name)


def is_public_suffix(name: str) -> bool:
    """Whether strangers register names directly below `name`, as far as we know."""
    return "." not in name or name in WELL_KNOWN_PUBLIC_SUFFIXES


def covers(pattern: HostPattern, host: Host) -> bool:
    """Whether `host` is one of the names that `pattern` stands for."""
    match pattern.reach:
        case Reach.EXACT:
            return host.name == pattern.name
        case Reach.SUBDOMAINS:
            return host.name.endswith("." + pattern.name)
        case Reach.UNSAFE_ANY:
            return "." in host.name and host.name.rpartition(".")[2] not in _NON_PUBLIC_TOP_LEVELS


def check_port(port: int) -> int:
    """A port that a rule may name; PatternError if it is out of range or taken by the sandbox itself."""
    if not 1 <= port <= 65535:
        raise PatternError(f"port {port} is out of range", expected="a port from 1 to 65535")
    if port == DNS_PORT:
        raise PatternError(
            "port 53 always reaches the sandbox's own resolver",
            expected="another port; names are resolved without a rule for DNS",
        )
    return port


def overlaps(one: HostPattern, other: HostPattern) -> bool:
    """Whether some host is covered by both."""
    if Reach.UNSAFE_ANY in (one.reach, other.reach):
        return True
    if one.reach is Reach.EXACT:
        return covers(other, Host(one.name))
    if other.reach is Reach.EXACT:
        return covers(one, Host(other.name))
    return f".{one.name}".endswith(f".{other.name}") or f".{other.name}".endswith(f".{one.name}")


def _parse_rule_port(text: str) -> int:
    try:
        return check_port(parse_port(text))
    except UntrustedInputError:
        raise PatternError(
            f"{_shown(text)} is no port", expected="a port from 1 to 65535 after the colon"
        ) from None


def _shown(text: str) -> str:
    short = text if len(text) <= 24 else text[:24] + "…"
    return ascii(short)[1:-1] if text else "nothing"
