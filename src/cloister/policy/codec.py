"""The policy as JSON in the compiled plan, and back.

Rule 1: reading is strict: an unknown key, a missing key, a wrong type or a name that is not canonical is a
        broken policy, which raises. There is no half of a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from cloister.errors import UntrustedInputError
from cloister.policy.names import parse_host
from cloister.types import HostPattern, Policy, Reach, Rule, Transport

_T = TypeVar("_T")
_RULE_KEYS = {"id", "reach", "name", "ports", "transport", "methods", "paths", "address_ranges", "note"}


class BrokenPolicyError(ValueError):
    """The stored policy is damaged or of another version; nothing of it may be used."""


def policy_document(policy: Policy) -> dict[str, object]:
    """The policy as `docs/architecture.md` describes it, ready for JSON; the order is stable."""
    return {
        "bans": [_rule_document(rule) for rule in policy.bans],
        "grants": [_rule_document(rule) for rule in policy.grants],
    }


def parse_policy(document: object) -> Policy:
    """The policy of a plan's "policy" value. BrokenPolicyError if it is not exactly what we write."""
    mapping = _mapping(document, {"bans", "grants"})
    return Policy(
        bans=_all(mapping["bans"], "bans", _parse_rule), grants=_all(mapping["grants"], "grants", _parse_rule)
    )


def _rule_document(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "reach": rule.pattern.reach.value,
        "name": rule.pattern.name,
        "ports": sorted(rule.ports),
        "transport": rule.transport.value,
        "methods": sorted(rule.methods),
        "paths": list(rule.paths),
        "address_ranges": list(rule.address_ranges),
        "note": rule.note,
    }


def _parse_rule(document: object) -> Rule:
    mapping = _mapping(document, _RULE_KEYS)
    ports = frozenset(_all(mapping["ports"], "ports", _port))
    if not ports:
        raise BrokenPolicyError("a rule has no ports")
    rule_id = _text(mapping["id"])
    if not rule_id:
        raise BrokenPolicyError("a rule has no id")
    return Rule(
        id=rule_id,
        pattern=_pattern(_text(mapping["reach"]), _text(mapping["name"])),
        ports=ports,
        transport=_transport(_text(mapping["transport"])),
        methods=frozenset(_all(mapping["methods"], "methods", _text)),
        paths=_all(mapping["paths"], "paths", _text),
        address_ranges=_all(mapping["address_ranges"], "address_ranges", _text),
        note=_text(mapping["note"]),
    )


def _pattern(reach_text: str, name: str) -> HostPattern:
    try:
        reach = Reach(reach_text)
    except ValueError:
        raise BrokenPolicyError("a rule has an unknown reach") from None
    if reach is Reach.UNSAFE_ANY:
        if name:
            raise BrokenPolicyError("a rule for any host carries a name")
        return HostPattern(reach=reach, name="")
    try:
        host = parse_host(name)
    except UntrustedInputError as error:
        raise BrokenPolicyError(f"a rule's name is no name: {error}") from None
    if host.name != name:
        raise BrokenPolicyError("a rule's name is not canonical")
    return HostPattern(reach=reach, name=name)


def _transport(text: str) -> Transport:
    try:
        return Transport(text)
    except ValueError:
        raise BrokenPolicyError("a rule has an unknown transport") from None


def _mapping(value: object, keys: set[str]) -> Mapping[str, object]:
    if not isinstance(value, dict) or set(value) != keys:
        raise BrokenPolicyError(f"expected an object with exactly the keys {', '.join(sorted(keys))}")
    return value


def _all(value: object, name: str, parse: Callable[[object], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list):
        raise BrokenPolicyError(f'"{name}" is not a list')
    return tuple(parse(item) for item in value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BrokenPolicyError("expected a text")
    return value


def _port(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65535:
        raise BrokenPolicyError("a port is not a number from 1 to 65535")
    return value
