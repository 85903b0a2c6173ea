"""Hosts of `passthrough`: never decrypted, judged by name alone.

Rule 1: what would need their requests to be read (a credential, a rule with methods or paths) is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.config.credentials import Found
from cloister.config.load import Loaded
from cloister.config.place import Place, place_of
from cloister.policy.decide import judges_requests
from cloister.policy.match import PatternError, overlaps, parse_destination
from cloister.types import HostPattern, Reach, Rule, Transport


def passthrough_of(
    files: Sequence[Loaded], found: Sequence[Found], rules: Sequence[Rule]
) -> tuple[HostPattern, ...]:
    """The patterns of all files. `rules` are all grants and bans."""
    patterns = []
    for file in files:
        for index, text in enumerate(file.document.network.passthrough):
            where = place_of(file, "network", "passthrough", index)
            pattern = _pattern(text, where)
            _refuse_credentials(pattern, found, text, where)
            _refuse_rules(pattern, rules, text, where)
            patterns.append(pattern)
    return tuple(dict.fromkeys(patterns))


def _pattern(text: str, where: Place) -> HostPattern:
    try:
        destination = parse_destination(text)
    except PatternError as error:
        raise where.error(error.reason, expected=error.expected, found=text) from None
    if destination.ports or destination.transport is Transport.TCP:
        raise where.error("a port has no place here", expected='a name or "*.suffix"', found=text)
    return destination.pattern


def _refuse_credentials(pattern: HostPattern, found: Sequence[Found], text: str, where: Place) -> None:
    for one in found:
        if any(overlaps(pattern, binding.pattern) for binding in one.credential.bindings):
            raise where.error(
                f'credential "{one.credential.name}" goes to this host, and that needs its requests to be read',
                expected="a host without credentials",
                found=text,
            )


def _refuse_rules(pattern: HostPattern, rules: Sequence[Rule], text: str, where: Place) -> None:
    for rule in rules:
        if not judges_requests(rule) or not overlaps(pattern, rule.pattern):
            continue
        is_preset = rule.id.startswith("preset:")
        if is_preset and any(_opens(other, rule) for other in rules):
            continue  # the user has opened all of it, so the preset's limits limit nothing
        raise where.error(
            f'"{rule.id}" judges requests of this host, and that needs them to be read',
            expected="a host without methods and paths",
            found=text,
            resolution=f'to open all of it: add "{rule.pattern}" to [network] allow' if is_preset else "",
        )


def _opens(grant: Rule, limited: Rule) -> bool:
    """Whether a grant of the user's opens the whole of a host."""
    return (
        grant.pattern == limited.pattern
        and grant.pattern.reach is not Reach.UNSAFE_ANY
        and not judges_requests(grant)
        and grant.ports >= limited.ports
        and ":allow:" in grant.id
    )
