"""Render what a project's sandbox may reach, for `cloister policy show`. No value of a credential is known here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloister.config.injection import written
from cloister.config.profiles import PROFILES
from cloister.config.wording import visible
from cloister.errors import UntrustedInputError
from cloister.policy.codec import parse_policy
from cloister.policy.decide import judges_requests, treatment
from cloister.policy.names import parse_host
from cloister.types import Binding, Credential, Deny, Policy, Reach, Rule, Transport


def page(plan: Mapping[str, object]) -> str:
    """The plan for people."""
    profile = str(plan["profile"])
    policy = parse_policy(plan["policy"])
    parts = [f"profile {profile}: {PROFILES[profile].description}", _files(plan["sources"])]
    if not PROFILES[profile].declared:
        parts.append(f'the profile "{profile}" leaves out what the files allow; their bans count')
    parts.append(_rules("allowed", policy.grants) if policy.grants else "allowed: nothing")
    if policy.bans:
        parts.append(_rules("banned, whatever is allowed", policy.bans))
    if policy.passthrough:
        parts.append("\n".join(["never decrypted:", *(f"  {pattern}" for pattern in policy.passthrough)]))
    if policy.credentials:
        parts.append(_credentials(policy))
    parts.append(_push(policy))
    parts += _signing(plan["ssh"])
    parts += _user_level(plan)
    parts.append(_limits(policy))
    return "\n\n".join(parts)


def _files(sources: object) -> str:
    """One line per file. The adopted copy is the project's file again."""
    entries = sources if isinstance(sources, list) else []
    lines = [
        f"  {visible(s['path'])}{'' if s['text'] is not None else '  (does not exist)'}" for s in entries[:2]
    ]
    return "\n".join(["files:", *lines])


def _rules(title: str, rules: Sequence[Rule]) -> str:
    rows = []
    told: set[str] = set()
    for rule in rules:
        # A preset's remark holds for several of its hosts: said once.
        note = "" if f"{_origin(rule)} {rule.note}" in told else rule.note
        told.add(f"{_origin(rule)} {rule.note}")
        rows.append((_target(rule), rule.id, _conditions(rule, note)))
    return "\n".join([f"{title}:", *_columns(rows)])


def _origin(rule: Rule) -> str:
    """ "preset:pypi" of "preset:pypi:pypi.org"."""
    return ":".join(rule.id.split(":")[:2])


def _target(rule: Rule) -> str:
    scheme = "tcp://" if rule.transport is Transport.TCP else ""
    return f"{scheme}{rule.pattern} :{_ports(rule.ports)}"


def _ports(ports: Iterable[int]) -> str:
    return ",".join(str(port) for port in sorted(ports))


def _conditions(rule: Rule, note: str) -> str:
    parts = []
    if rule.methods:
        parts.append(f"methods {', '.join(sorted(rule.methods))}")
    if rule.paths:
        parts.append(f"paths {', '.join(rule.paths)}")
    if rule.address_ranges:
        parts.append(f"may resolve into {', '.join(rule.address_ranges)}")
    return "; ".join([*parts, *([note] if note else [])])


def _credentials(policy: Policy) -> str:
    """Each with its hosts. Where from, never what."""
    rows = []
    for credential in policy.credentials:
        title: tuple[str, str] = (credential.name, visible(credential.source))
        for binding in credential.bindings:
            rows.append((*title, _bound(binding), "; ".join(_words(policy, credential, binding))))
            title = ("", "")
    return "\n".join(["credentials (the sandbox sees placeholders):", *_columns(rows)])


def _bound(binding: Binding) -> str:
    return f"{binding.pattern} :{_ports(binding.ports)}"


def _words(policy: Policy, credential: Credential, binding: Binding) -> list[str]:
    words = [written(binding.injection)]
    words += [f"paths {', '.join(binding.paths)}"] if binding.paths else []
    words += [f"repositories {', '.join(credential.repositories)}"] if credential.repositories else []
    words += ["read only"] if credential.read_only else []
    words += ["asks first"] if credential.confirm else []
    words += ["not reachable: nothing allows it"] if _unreachable(policy, binding) else []
    return words


def _unreachable(policy: Policy, binding: Binding) -> bool:
    if binding.pattern.reach is not Reach.EXACT:
        return False
    try:
        host = parse_host(binding.pattern.name)
    except UntrustedInputError:
        return True
    return all(isinstance(treatment(policy, host, port), Deny) for port in binding.ports)


def _push(policy: Policy) -> str:
    push = policy.push
    if not push.refs:
        return "git push, where requests are read: nothing"
    also = [word for word, is_allowed in (("delete", push.delete), ("force", push.force)) if is_allowed]
    words = f" (also: {', '.join(also)})" if also else " (create and fast-forward)"
    return "\n".join([f"git push{words}:", *(f"  {ref}" for ref in push.refs)])


def _signing(document: object) -> list[str]:
    if not isinstance(document, dict) or not document["agent"]:
        return []
    how = "you are asked each time" if document["confirm"] else "without asking, logged"
    keys = ", ".join(visible(key) for key in document["keys"])
    return [f"SSH agent: {keys}\n  signs for {', '.join(document['hosts'])}; {how}"]


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    return [
        "  "
        + "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in table
    ]


def _user_level(plan: Mapping[str, object]) -> list[str]:
    parts = []
    hosts, authorities = plan["hosts"], plan["upstream_ca"]
    if isinstance(hosts, dict) and hosts:
        rows = [
            (name, pin["address"] + (f" port {pin['port']}" if pin["port"] else ""))
            for name, pin in hosts.items()
        ]
        parts.append("\n".join(["pinned by you:", *_columns(rows)]))
    if isinstance(authorities, list) and authorities:
        parts.append(
            "\n".join(["further certificate authorities:", *(f"  {visible(path)}" for path in authorities)])
        )
    return parts


def _limits(policy: Policy) -> str:
    lines = ["everything else is refused. To ask about one URL: cloister why URL"]
    presets = [grant for grant in policy.grants if grant.id.startswith("preset:")]
    if any(not judges_requests(grant) for grant in presets):
        lines.append(
            "by name only: what is sent there is not read, so whoever holds a token of that host in the sandbox can "
            "use it; hosts that only take uploads are left out"
        )
    if any(judges_requests(grant) for grant in presets):
        lines.append("read only: requests are read, and publishing does not pass")
    return "\n".join(lines)
