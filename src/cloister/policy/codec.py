"""The policy as JSON in the compiled plan, and back.

Rule 1: reading is strict: an unknown key, a missing key, a wrong type or a name that is not canonical is a
        broken policy, which raises. There is no half of a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from cloister.errors import UntrustedInputError
from cloister.policy.names import parse_host
from cloister.types import (
    AwsSignature,
    BasicInjection,
    Binding,
    Credential,
    HeaderInjection,
    HostPattern,
    Injection,
    Policy,
    PushRule,
    QueryInjection,
    Reach,
    Replacement,
    Rule,
    Transport,
)

_T = TypeVar("_T")
PLACEHOLDER_LEAST_CHARACTERS = 16  # a shorter one would be found by chance
_RULE_KEYS = {"id", "reach", "name", "ports", "transport", "methods", "paths", "address_ranges", "note"}


class BrokenPolicyError(ValueError):
    """The stored policy is damaged or of another version; nothing of it may be used."""


def policy_document(policy: Policy) -> dict[str, object]:
    """The policy as `docs/architecture.md` describes it, ready for JSON; the order is stable."""
    return {
        "bans": [_rule_document(rule) for rule in policy.bans],
        "grants": [_rule_document(rule) for rule in policy.grants],
        "credentials": [_credential_document(credential) for credential in policy.credentials],
        "passthrough": [_pattern_document(pattern) for pattern in policy.passthrough],
        "push": {
            "refs": list(policy.push.refs),
            "delete": policy.push.delete,
            "force": policy.push.force,
        },
    }


def parse_policy(document: object) -> Policy:
    """The policy of a plan's "policy" value. BrokenPolicyError if it is not exactly what we write."""
    mapping = _mapping(document, {"bans", "grants", "credentials", "passthrough", "push"})
    push = _mapping(mapping["push"], {"refs", "delete", "force"})
    return Policy(
        bans=_all(mapping["bans"], "bans", _parse_rule),
        grants=_all(mapping["grants"], "grants", _parse_rule),
        credentials=_all(mapping["credentials"], "credentials", _parse_credential),
        passthrough=_all(mapping["passthrough"], "passthrough", _parse_pattern),
        push=PushRule(
            refs=_all(push["refs"], "refs", _text), delete=_flag(push["delete"]), force=_flag(push["force"])
        ),
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


def _credential_document(credential: Credential) -> dict[str, object]:
    return {
        "name": credential.name,
        "source": credential.source,
        "placeholder": credential.placeholder,
        "confirm": credential.confirm,
        "repositories": list(credential.repositories),
        "read_only": credential.read_only,
        "bindings": [
            {
                **_pattern_document(binding.pattern),
                "ports": sorted(binding.ports),
                "paths": list(binding.paths),
                "inject": _injection_document(binding.injection),
            }
            for binding in credential.bindings
        ],
    }


def _parse_credential(document: object) -> Credential:
    keys = {"name", "source", "placeholder", "confirm", "repositories", "read_only", "bindings"}
    mapping = _mapping(document, keys)
    placeholder = _text(mapping["placeholder"])
    if len(placeholder) < PLACEHOLDER_LEAST_CHARACTERS or not placeholder.isascii():
        raise BrokenPolicyError("a credential's placeholder is too short, or not ASCII")
    name, bindings = _text(mapping["name"]), _all(mapping["bindings"], "bindings", _parse_binding)
    if not name or not bindings:
        raise BrokenPolicyError("a credential has no name, or no bindings")
    return Credential(
        name=name,
        source=_text(mapping["source"]),
        bindings=bindings,
        placeholder=placeholder,
        confirm=_flag(mapping["confirm"]),
        repositories=_all(mapping["repositories"], "repositories", _text),
        read_only=_flag(mapping["read_only"]),
    )


def _parse_binding(document: object) -> Binding:
    mapping = _mapping(document, {"reach", "name", "ports", "paths", "inject"})
    ports = frozenset(_all(mapping["ports"], "ports", _port))
    if not ports:
        raise BrokenPolicyError("a binding has no ports")
    return Binding(
        pattern=_pattern(_text(mapping["reach"]), _text(mapping["name"])),
        injection=_parse_injection(mapping["inject"]),
        ports=ports,
        paths=_all(mapping["paths"], "paths", _text),
    )


def _injection_document(injection: Injection) -> dict[str, object]:
    match injection:
        case HeaderInjection(name=name, template=template):
            return {"kind": "header", "name": name, "template": template}
        case BasicInjection(user=user):
            return {"kind": "basic", "user": user}
        case QueryInjection(name=name):
            return {"kind": "query", "name": name}
        case Replacement():
            return {"kind": "replace"}
        case AwsSignature():
            return {"kind": "aws-sigv4"}


def _parse_injection(document: object) -> Injection:
    kind = document.get("kind") if isinstance(document, dict) else None
    match kind:
        case "header":
            mapping = _mapping(document, {"kind", "name", "template"})
            return HeaderInjection(name=_text(mapping["name"]), template=_text(mapping["template"]))
        case "basic":
            return BasicInjection(user=_text(_mapping(document, {"kind", "user"})["user"]))
        case "query":
            return QueryInjection(name=_text(_mapping(document, {"kind", "name"})["name"]))
        case "replace" | "aws-sigv4":
            _mapping(document, {"kind"})
            return Replacement() if kind == "replace" else AwsSignature()
        case _:
            raise BrokenPolicyError("a credential has an unknown injection")


def _pattern_document(pattern: HostPattern) -> dict[str, object]:
    return {"reach": pattern.reach.value, "name": pattern.name}


def _parse_pattern(document: object) -> HostPattern:
    mapping = _mapping(document, {"reach", "name"})
    return _pattern(_text(mapping["reach"]), _text(mapping["name"]))


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BrokenPolicyError("expected true or false")
    return value


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
