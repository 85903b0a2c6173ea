"""What the audit log of one run says about names, requests and canaries.

Rule 1: no I/O.
Rule 2: hosts are grouped: a thousand names below one domain are one finding, with the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloister.audit.log import Event
from cloister.credentials import canary
from cloister.depaudit.observation import Asked, Sent

REQUESTS_LIMIT = 20  # of each host
HOSTS_LIMIT = 1000
_TOLD = frozenset({"dns", "connect", "request", "refuse"})


def asked(events: Iterable[Event]) -> tuple[Asked, ...]:
    """Every host that was asked for, refused ones first."""
    found: dict[tuple[str, str], _Host] = {}
    for event in events:
        if event.kind not in _TOLD or not event.host:
            continue
        key = (event.host.lower().removesuffix("."), _how(event))
        if key not in found and len(found) >= HOSTS_LIMIT:
            continue
        found.setdefault(key, _Host()).add(event)
    return tuple(
        Asked(host=host, how=how, times=one.times, requests=tuple(one.requests), reason=one.reason)
        for (host, how), one in sorted(found.items(), key=lambda item: (item[0][1] != "refused", item[0]))
    )


def sent(events: Sequence[Event], texts: Mapping[str, Sequence[str]]) -> tuple[Sent, ...]:
    """The canaries that were on their way out: in requests as the gateway saw them, in names as we see them."""
    found: dict[Sent, None] = {}
    for event in events:
        method = f"in a {event.method} request" if event.method else "in a request"
        for name in canary.of_rule(event.rule) if event.kind == "refuse" else ():
            found[Sent(canary=name, target=event.host or "", how=method)] = None
    names = {event.host for event in events if event.via == "dns" and event.host}
    # A secret may be cut over many names: what they have in common tells where it went.
    for name, hosts in canary.in_names(names, texts).items():
        for host in sorted({_parent(host) for host in hosts}):
            found[Sent(canary=name, target=host, how="in a DNS name")] = None
    return tuple(found)


class _Host:
    def __init__(self) -> None:
        self.times = 0
        self.requests: dict[str, None] = {}
        self.reason = ""

    def add(self, event: Event) -> None:
        self.times += 1
        if event.kind == "refuse":
            self.reason = self.reason or event.reason or ""
        if event.method and event.method != "CONNECT" and len(self.requests) < REQUESTS_LIMIT:
            self.requests[f"{event.method} {event.path or ''}".strip()] = None


def _how(event: Event) -> str:
    if event.kind != "refuse":
        return "allowed"
    # Granted, but not to be had (gateway/upstream.py): the network's fault, not the code's.
    failed = (event.status or 0) >= 500 or "resolves to a private address" in (event.reason or "")
    return "unreachable" if event.rule and failed else "refused"


def _parent(name: str) -> str:
    """The last three labels: enough to tell a domain under most public suffixes."""
    labels = name.rstrip(".").split(".")
    return name if len(labels) <= 3 else "*." + ".".join(labels[-2:] if len(labels[-1]) > 2 else labels[-3:])
