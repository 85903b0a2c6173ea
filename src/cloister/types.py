"""The values that the parts of cloister hand to each other.

Rule 1: parsed once at the border, immutable afterwards. A `Host` is always canonical.
Rule 2: a decision carries its reason and the id of the rule that made it; never a bool.
Rule 3: this module imports nothing of ours and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Host:
    """A canonical DNS name: lower-case A-labels, no trailing dot, at least one letter in the last label.

    Made only by `policy.names.parse_host`.
    """

    name: str

    def __str__(self) -> str:
        return self.name


class Reach(Enum):
    """How much a `HostPattern` covers."""

    EXACT = "exact"  # the name itself
    SUBDOMAINS = "subdomains"  # "*.name": every name below, at any depth, not the apex
    UNSAFE_ANY = "any"  # every name; made only by the profile `full`


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPattern:
    """A host pattern of a rule. `name` is empty for `Reach.UNSAFE_ANY`."""

    reach: Reach
    name: str

    def __str__(self) -> str:
        match self.reach:
            case Reach.EXACT:
                return self.name
            case Reach.SUBDOMAINS:
                return f"*.{self.name}"
            case Reach.UNSAFE_ANY:
                return "(any public name)"


class Transport(Enum):
    """What a rule lets through a port."""

    WEB = "web"  # TLS (judged by its SNI) or HTTP/1.1 (judged per request)
    TCP = "tcp"  # any bytes; judged by the name and port alone


DEFAULT_WEB_PORTS = frozenset({80, 443})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One grant or ban. Empty `methods` and `paths` mean: any.

    `ports` is never empty. `address_ranges` are CIDR texts of non-public addresses into which the name may
    resolve (split-horizon DNS). `note` is for people (`policy show`).
    """

    id: str
    pattern: HostPattern
    ports: frozenset[int] = DEFAULT_WEB_PORTS
    transport: Transport = Transport.WEB
    methods: frozenset[str] = frozenset()
    paths: tuple[str, ...] = ()
    address_ranges: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderInjection:
    """Set a header. `template` holds "{}" once, where the value goes, as in "Bearer {}"."""

    name: str  # lower case
    template: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicInjection:
    """Set `Authorization: Basic` with this user and the value as its password."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryInjection:
    """Set a query parameter."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Put the value wherever the placeholder stands in a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSignature:
    """Sign the request anew (AWS SigV4). The value is JSON, as `aws configure export-credentials` prints it."""


Injection = HeaderInjection | BasicInjection | QueryInjection | Replacement | AwsSignature


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Where a credential goes, and how. `paths` (globs) narrow it; none mean: every path."""

    pattern: HostPattern
    injection: Injection
    ports: frozenset[int] = frozenset({443})
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A credential without its value. `source` says where the value is ("env:NAME", "op://…": secrets/)."""

    name: str
    source: str
    bindings: tuple[Binding, ...]
    placeholder: str  # what the sandbox sees in its place
    confirm: bool = False  # the user is asked at its first use
    # "owner/name", lower case, "*" for any name; none mean: any. Requests for other repositories go without it.
    repositories: tuple[str, ...] = ()
    read_only: bool = False  # not for pushes, nor for methods other than GET, HEAD and OPTIONS outside git


@dataclass(frozen=True, slots=True, kw_only=True)
class PushRule:
    """Which refs may be pushed to, over intercepted git. Creating and fast-forwarding are always meant."""

    refs: tuple[str, ...] = ()  # globs: "*" within a segment, "**" for segments
    delete: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a sandbox may reach. An empty policy denies everything.

    A host of `passthrough` is never decrypted: judged by name alone.
    """

    bans: tuple[Rule, ...] = ()
    grants: tuple[Rule, ...] = ()
    credentials: tuple[Credential, ...] = ()
    passthrough: tuple[HostPattern, ...] = ()
    push: PushRule = PushRule()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection that the sandbox asks for: a name, a port, and what it speaks there."""

    host: Host
    port: int
    transport: Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A plain or decrypted HTTP request. `path` is the raw path without query, as the client wrote it."""

    host: Host
    port: int
    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """A grant, with the rule that gave it."""

    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """A refusal. `rule` is the id of the ban, or None if no grant covered it; `ask` tells the user the way on."""

    reason: str
    rule: str | None = None
    ask: str = ""


Decision = Allow | Deny
