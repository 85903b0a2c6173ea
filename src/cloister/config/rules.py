"""Turn the [network] tables, the presets and the profile into the policy.

Rule 1: what cannot be enforced wholly is refused at load. Methods and paths need requests that are read, so no
        other grant may cover them (the rule would be void), and no `passthrough`.
Rule 2: a ban without a port bans every port that anything opens.
Rule 3: the ids of rules are unique and say where each comes from: "project:allow:api.example.com:8443".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloister.config.collisions import check_readable, check_together
from cloister.config.credentials import Found, own_grants
from cloister.config.git import push_of
from cloister.config.load import Loaded, nearest
from cloister.config.model import NetworkRule
from cloister.config.passthrough import passthrough_of
from cloister.config.place import Place, place_of
from cloister.config.preset import CREDENTIAL_KIND, Preset
from cloister.config.profiles import PROFILES, Profile
from cloister.config.settings import Overrides
from cloister.config.wording import quoted
from cloister.errors import CloisterError, UsageError
from cloister.policy.address import parse_range
from cloister.policy.match import (
    Destination,
    PatternError,
    check_port,
    overlaps,
    parse_destination,
    parse_pattern,
)
from cloister.policy.paths import parse_glob
from cloister.types import DEFAULT_WEB_PORTS, HostPattern, Policy, Reach, Rule, Transport

_PLAIN_HTTP_PORTS = frozenset({80})
_METHOD_LIMIT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    """A rule of a file, and where it stands. `every_port`: a ban that names none."""

    rule: Rule
    place: Place
    is_ban: bool
    every_port: bool = False


def policy_of(
    files: Sequence[Loaded],
    overrides: Overrides,
    profile_name: str,
    presets: Mapping[str, Preset],
    found: Sequence[Found] = (),
) -> Policy:
    """The policy of a profile, the files and the command line. CloisterError if something is wrong."""
    profile = PROFILES[profile_name]
    declared = [found for file in files for found in _declared(file)]
    _refuse_duplicates(declared)
    check_together(found)
    chosen = _chosen_presets(files, profile, presets)
    grants = _profile_grants(profile)
    grants += [rule for name in chosen for rule in presets[name].rules()]
    if profile.declared:
        grants += [found.rule for found in declared if not found.is_ban]
    grants += [_command_line_grant(text) for text in dict.fromkeys(overrides.allow)]
    _refuse_void(declared, grants)
    check_readable(found, grants)
    if profile.declared:
        grants += own_grants(found, grants)
    opened = DEFAULT_WEB_PORTS.union(*(grant.ports for grant in grants))
    bans = [
        replace(found.rule, ports=opened) if found.every_port else found.rule
        for found in declared
        if found.is_ban
    ]
    return Policy(
        bans=tuple(bans),
        grants=tuple(grants),
        credentials=tuple(one.credential for one in found),
        passthrough=passthrough_of(files, found, [*grants, *bans]),
        push=push_of(files),
    )


def _profile_grants(profile: Profile) -> list[Rule]:
    if not profile.unsafe_any:
        return []
    pattern = HostPattern(reach=Reach.UNSAFE_ANY, name="")
    return [Rule(id="profile:full", pattern=pattern, note="every public name, never private addresses")]


def _chosen_presets(files: Sequence[Loaded], profile: Profile, presets: Mapping[str, Preset]) -> list[str]:
    """The profile's presets, then those of the files, each once. Their names are checked in any profile."""
    chosen = {name: None for name, preset in presets.items() if preset.kind in profile.kinds}
    for file in files:
        for index, name in enumerate(file.document.network.presets):
            if name not in presets:
                raise place_of(file, "network", "presets", index).error(
                    "unknown preset",
                    expected=f"one of {', '.join(n for n, p in presets.items() if p.kind != CREDENTIAL_KIND)}",
                    found=name,
                    resolution=nearest(name, presets),
                )
            if presets[name].kind == CREDENTIAL_KIND:
                raise place_of(file, "network", "presets", index).error(
                    "this preset is for credentials, and opens no host by itself",
                    expected=f'[[credential]] with preset = "{name}"',
                    found=name,
                )
            if profile.declared:
                chosen[name] = None
    return list(chosen)


def _command_line_grant(text: str) -> Rule:
    try:
        destination = parse_destination(text)
    except PatternError as error:
        raise UsageError(
            f"--allow: {error.reason}", details=f"expected: {error.expected}\nfound: {quoted(text)}"
        ) from None
    return Rule(
        id=f"command-line:allow:{_canonical(destination)}",
        pattern=destination.pattern,
        ports=destination.grant_ports,
        transport=destination.transport,
    )


def _declared(file: Loaded) -> list[_Declared]:
    network = file.document.network
    level = file.source.level.value
    found = []
    for key, texts in (("allow", network.allow), ("deny", network.deny)):
        for index, text in enumerate(texts):
            place = place_of(file, "network", key, index)
            destination = _parsed_destination(text, place)
            rule = Rule(
                id=f"{level}:{key}:{_canonical(destination)}",
                pattern=destination.pattern,
                ports=destination.grant_ports,
                transport=destination.transport,
            )
            is_ban = key == "deny"
            every_port = is_ban and not destination.ports
            found.append(_Declared(rule=rule, place=place, is_ban=is_ban, every_port=every_port))
    for index, table in enumerate(network.rule):
        found.append(
            _declared_rule(table, f"{level}:rule:{index + 1}", place_of(file, "network", "rule", index))
        )
    return found


def _declared_rule(table: NetworkRule, prefix: str, place: Place) -> _Declared:
    transport = Transport(table.transport)
    try:
        pattern = parse_pattern(table.host)
    except PatternError as error:
        raise _pattern_fault(error, table.host, place.item("host")) from None
    is_ban = table.effect == "deny"
    if table.methods or table.paths:
        _check_readable(table, place)
    if transport is Transport.TCP and table.ports is None:
        raise place.error(
            'a rule with transport = "tcp" needs ports', expected="ports, as in ports = [5432]", found=None
        )
    if is_ban and table.addresses:
        raise place.item("addresses").error(
            "a ban has no use for addresses",
            expected="addresses in a rule that allows",
            found=table.addresses,
        )
    default_ports = _PLAIN_HTTP_PORTS if table.scheme == "http" else DEFAULT_WEB_PORTS
    rule = Rule(
        id=f"{prefix}:{pattern}",
        pattern=pattern,
        ports=default_ports if table.ports is None else _ports(table.ports, place.item("ports")),
        transport=transport,
        methods=frozenset(
            _method(text, place.item("methods").item(i)) for i, text in enumerate(table.methods)
        ),
        paths=tuple(_glob(text, place.item("paths").item(i)) for i, text in enumerate(table.paths)),
        address_ranges=tuple(
            _range(text, place.item("addresses").item(i)) for i, text in enumerate(table.addresses)
        ),
    )
    every_port = is_ban and table.ports is None and table.scheme is None
    return _Declared(rule=rule, place=place, is_ban=is_ban, every_port=every_port)


def _check_readable(table: NetworkRule, place: Place) -> None:
    """Methods and paths need requests that can be read."""
    if table.transport == "tcp":
        key = "methods" if table.methods else "paths"
        raise place.item(key).error(
            'it cannot be judged with transport = "tcp"',
            expected='transport = "web"',
            found=table.transport,
        )


def _refuse_duplicates(declared: Iterable[_Declared]) -> None:
    seen: set[str] = set()
    for found in declared:
        if found.rule.id in seen:
            raise found.place.error(
                "this entry stands twice", expected="each entry once", found=str(found.rule.id)
            )
        seen.add(found.rule.id)


def _refuse_void(declared: Iterable[_Declared], grants: Iterable[Rule]) -> None:
    """A grant that judges requests is void beside a grant of the same host and port that does not."""
    plain = [grant for grant in grants if not (grant.methods or grant.paths)]
    for found in declared:
        rule = found.rule
        if found.is_ban or not (rule.methods or rule.paths):
            continue
        for other in plain:
            shared = rule.ports & other.ports
            # The profile `full` means everything; its user has said so.
            if (
                shared
                and other.pattern.reach is not Reach.UNSAFE_ANY
                and overlaps(rule.pattern, other.pattern)
            ):
                ports = ", ".join(map(str, sorted(shared)))
                expected = f'the other grant without port {ports}, as in "{other.pattern}:443"'
                if other.id.startswith("preset:"):
                    expected = (
                        'effect = "deny" here, for what must not pass; or a profile without that preset'
                    )
                raise found.place.error(
                    f'"{other.id}" allows all of "{other.pattern}" on port {ports}: this one is void',
                    expected=expected,
                    found=None,
                )


def _parsed_destination(text: str, place: Place) -> Destination:
    try:
        return parse_destination(text)
    except PatternError as error:
        raise _pattern_fault(error, text, place) from None


def _pattern_fault(error: PatternError, text: object, place: Place) -> CloisterError:
    return place.error(error.reason, expected=error.expected, found=text)


def _ports(ports: list[int], place: Place) -> frozenset[int]:
    if not ports:
        raise place.error("a rule without ports covers nothing", expected="at least one port", found=ports)
    try:
        return frozenset(check_port(port) for port in ports)
    except PatternError as error:
        raise _pattern_fault(error, ports, place) from None


def _method(text: str, place: Place) -> str:
    if not (text.isascii() and text.isalpha() and text.isupper() and len(text) <= _METHOD_LIMIT):
        raise place.error("this is no HTTP method", expected='capital letters, as in "GET"', found=text)
    return text


def _glob(text: str, place: Place) -> str:
    try:
        return parse_glob(text)
    except PatternError as error:
        raise _pattern_fault(error, text, place) from None


def _range(text: str, place: Place) -> str:
    try:
        return str(parse_range(text))
    except PatternError as error:
        raise _pattern_fault(error, text, place) from None


def _canonical(destination: Destination) -> str:
    scheme = "tcp://" if destination.transport is Transport.TCP else ""
    port = "".join(f":{port}" for port in destination.ports)
    return f"{scheme}{destination.pattern}{port}"
