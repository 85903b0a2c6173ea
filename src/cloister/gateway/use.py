"""Which credentials a request is sent with, and whether it may be sent at all because of them.

Rule 1: a placeholder on its way to a host that its credential is not bound to stops the request and is an alarm
        (ATTACKS ID-5): something in the sandbox tries where a token would be good.
Rule 2: nothing is injected over cleartext (ID-11), nor for a repository or a path that the credential is not for; such
        a request goes without it (public repositories stay readable), and without its placeholder.
Rule 3: what a read-only credential does not cover is refused, not sent without: its answer would puzzle.
Rule 4: no I/O, and no value of a credential.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from cloister.credentials import canary, repository
from cloister.errors import UntrustedInputError
from cloister.gateway.judge import methods
from cloister.messages import RequestHead
from cloister.policy.decide import bindings
from cloister.policy.paths import canonical_path, covers_path
from cloister.types import Binding, Credential, Deny, Host, Policy

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A credential at one of its places."""

    credential: Credential
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """What to inject, and what to leave out though the client may ask for it."""

    injected: tuple[Use, ...] = ()
    withheld: tuple[Use, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A refusal that the user must hear of."""

    denial: Deny


NONE = Uses()


def bound(policy: Policy, host: Host, port: int) -> tuple[Use, ...]:
    """Every credential that is bound to this host and port, on whatever path."""
    found = bindings(policy, host, port)
    return tuple(Use(credential=credential, binding=binding) for credential, binding in found)


def misplaced(found: Set[str], candidates: tuple[Use, ...], host: Host, *, tls: bool) -> Alarm | None:
    """Whether a placeholder that was `found` in a request must not go to this host."""
    if planted := canary.denial(found, host.name):
        return Alarm(denial=planted)
    allowed = {use.credential.name for use in candidates} if tls else set()
    for name in sorted(found - allowed):
        where = "" if name in {use.credential.name for use in candidates} else ", which it is not bound to"
        how = "" if tls else " without TLS"
        return Alarm(
            denial=Deny(
                reason=f'the placeholder of credential "{name}" was on its way to "{host}"{how}{where}',
                rule=f"credential:{name}",
                ask=f'if that is right, bind it: add "{host}" to the hosts of [[credential]] "{name}"'
                if where
                else "use https://",
            )
        )
    return None


def choose(candidates: tuple[Use, ...], head: RequestHead, host: Host, *, tls: bool) -> Uses | Deny:
    """Which of the credentials that are bound to its host this request gets."""
    if not candidates or not tls:
        return Uses(withheld=candidates) if candidates else NONE
    injected, withheld = [], []
    for use in candidates:
        if not _on_path(use.binding, head.path) or not _about(use.credential, head, host):
            withheld.append(use)
            continue
        if use.credential.read_only and not _reads(head):
            return Deny(
                reason=f'credential "{use.credential.name}" is for reading only, and this request writes',
                rule=f"credential:{use.credential.name}",
                ask=f'remove read_only from [[credential]] "{use.credential.name}", then run: cloister trust',
            )
        injected.append(use)
    return Uses(injected=tuple(injected), withheld=tuple(withheld))


def _on_path(binding: Binding, path: str) -> bool:
    if not binding.paths:
        return True
    try:
        canonical = canonical_path(path)
    except UntrustedInputError:  # it can be read in two ways
        return False
    return any(covers_path(glob, canonical) for glob in binding.paths)


def _about(credential: Credential, head: RequestHead, host: Host) -> bool:
    """Whether the request is about a repository of the credential's, if it is for some only."""
    if not credential.repositories:
        return True
    found = repository.of_request(host.name, head.path)
    if found is None:
        return False
    owner, name = found.owner.lower(), found.name.lower()
    return f"{owner}/{name}" in credential.repositories or f"{owner}/*" in credential.repositories


def _reads(head: RequestHead) -> bool:
    service = repository.git_service(head.method, head.path, head.query)
    if service is not None and service.name == "receive-pack":
        return False
    if methods(head) - _READING - {head.method}:
        return False
    return head.method in _READING or (service is not None and _fetches(head))


def _fetches(head: RequestHead) -> bool:
    """Whether a POST is git's fetch, and not an API's request for something of that name."""
    if head.untrusted_authority.startswith("api.") or head.path.startswith("/api/"):
        return False
    return head.values(b"content-type") == [b"application/x-git-upload-pack-request"]
