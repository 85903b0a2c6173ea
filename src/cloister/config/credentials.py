"""Turn the [[credential]] tables into what the gateway is to do with them, and what the sandbox sees of them.

Rule 1: a credential without hosts, or without a word on where in a request it goes, is an error. What two of them may
        not share is in `collisions.py`.
Rule 2: a preset fills what the table leaves out. It is data: hosts with their injections, variables, files, a shape.
Rule 3: a placeholder is the same at every start of a project: tools store what they are given.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cloister.config import shown
from cloister.config.injection import EXPECTED, parse_injection
from cloister.config.load import Loaded, nearest
from cloister.config.model import CredentialTable
from cloister.config.place import Place, place_of
from cloister.config.preset import CredentialPlace, CredentialPreset, Preset, limited
from cloister.credentials import placeholder
from cloister.policy.codec import PLACEHOLDER_LEAST_CHARACTERS
from cloister.policy.match import PatternError, overlaps, parse_destination
from cloister.policy.paths import parse_glob
from cloister.secrets.source import SourceError, parse
from cloister.types import BasicInjection, Binding, Credential, Injection, Reach, Rule, Transport

TLS_PORT = 443
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_REPOSITORY = re.compile(r"[A-Za-z0-9_.-]{1,100}(?:/[A-Za-z0-9_.-]{1,100})*/(?:[A-Za-z0-9_.-]{1,100}|\*)")
_PLACEHOLDER = re.compile(r"[A-Za-z0-9_.~-]+")
_PLACEHOLDER_MOST_CHARACTERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A credential with what the sandbox sees of it, and where it stands. `files`: path below the home → text.

    `git`: hosts whose password it is for git. `reading`: hosts of its preset that are for reading alone.
    """

    credential: Credential
    place: Place
    environment: Mapping[str, str]
    files: Mapping[str, str]
    git: tuple[str, ...] = ()
    reading: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def credentials_of(files: Sequence[Loaded], presets: Mapping[str, Preset], *, seed: str) -> tuple[Found, ...]:
    """All credentials, the user's first. ConfigurationError if something is wrong with one of them."""
    return tuple(
        _one(table, place_of(file, "credential", index), presets, f"{seed}\0{table.name}")
        for file in files
        for index, table in enumerate(file.document.credential)
    )


def own_grants(found: Sequence[Found], others: Sequence[Rule]) -> list[Rule]:
    """A credential opens its hosts, unless another rule speaks of them (docs/adr/0052)."""
    spoken = [rule for rule in others if rule.pattern.reach is not Reach.UNSAFE_ANY]
    grants: dict[str, Rule] = {}
    posted: dict[str, tuple[str, ...]] = {}
    for one in found:
        for binding in one.credential.bindings:
            if any(overlaps(rule.pattern, binding.pattern) and rule.ports & binding.ports for rule in spoken):
                continue
            rule_id = f"credential:{one.credential.name}:{binding.pattern}"
            known = grants.get(rule_id)
            ports = binding.ports | (known.ports if known else frozenset())
            grants[rule_id] = Rule(id=rule_id, pattern=binding.pattern, ports=ports)
            if str(binding.pattern) in one.reading:
                posted[rule_id] = one.reading[str(binding.pattern)]
    rules: list[Rule] = []
    for rule_id, rule in grants.items():
        rules += limited(rule, posted[rule_id]) if rule_id in posted else [rule]
    return rules


def _one(table: CredentialTable, where: Place, presets: Mapping[str, Preset], seed: str) -> Found:
    if not _NAME.fullmatch(table.name):
        raise where.item("name").error(
            "this is no name for a credential",
            expected="at most 64 letters, digits, . _ and -",
            found=table.name,
        )
    try:
        source = parse(table.source)
    except SourceError as error:
        raise where.item("source").error(error.reason, expected=error.expected, found=table.source) from None
    preset = _preset(table, where, presets)
    whole = presets[table.preset] if table.preset is not None else None
    credential = Credential(
        name=table.name,
        source=str(source),
        bindings=_bindings(table, where, preset),
        placeholder=_placeholder(table, where, preset, seed),
        confirm=table.confirm,
        repositories=tuple(
            _repository(name, where.item("repositories").item(i)) for i, name in enumerate(table.repositories)
        ),
        read_only=table.read_only,
    )
    return Found(
        credential=credential,
        place=where,
        environment=shown.environment(table, where, preset, credential, seed),
        files=shown.files(table, where, preset, credential),
        git=_git(credential) if whole is None or whole.git else (),
        reading=whole.reading if whole is not None else {},
    )


def _git(credential: Credential) -> tuple[str, ...]:
    """The hosts that take it as git does: as a password."""
    return tuple(
        binding.pattern.name
        for binding in credential.bindings
        if isinstance(binding.injection, BasicInjection)
        and binding.pattern.reach is Reach.EXACT
        and TLS_PORT in binding.ports
    )


def _preset(table: CredentialTable, where: Place, presets: Mapping[str, Preset]) -> CredentialPreset | None:
    if table.preset is None:
        return None
    known = {name: preset.credential for name, preset in presets.items() if preset.credential is not None}
    if table.preset not in known:
        raise where.item("preset").error(
            "no preset of this name knows credentials",
            expected=f"one of {', '.join(known)}",
            found=table.preset,
            resolution=nearest(table.preset, known) or "leave it out, and name hosts and inject",
        )
    return known[table.preset]


def _bindings(table: CredentialTable, where: Place, preset: CredentialPreset | None) -> tuple[Binding, ...]:
    given = None if table.inject is None else parse_injection(table.inject, where.item("inject"))
    paths = tuple(_glob(text, where.item("paths").item(i)) for i, text in enumerate(table.paths))
    bindings = []
    for index, host in enumerate(_hosts(table, where, preset)):
        at = where.item("hosts").item(index)
        for place in _places(table, where, preset, host, given):
            if place.injection is None:
                raise where.error(
                    f'preset "{table.preset}" cannot know whose the credential is',
                    expected='the user\'s name, as in inject = "basic:NAME"',
                    found=None,
                )
            bindings.append(_binding(host, place.injection, at, paths or place.paths))
    return tuple(dict.fromkeys(bindings))


def _hosts(table: CredentialTable, where: Place, preset: CredentialPreset | None) -> list[str]:
    if table.hosts:
        return table.hosts
    if preset is not None and preset.own_hosts:
        return list(dict.fromkeys(place.host for place in preset.places))
    if preset is not None:
        raise where.error(
            f'preset "{table.preset}" has no hosts of its own: name those that you use',
            expected='exact names, as in hosts = ["sts.eu-central-1.amazonaws.com"]',
            found=None,
        )
    raise where.error(
        f'credential "{table.name}" has no hosts, so it could go nowhere',
        expected='hosts = ["api.example.com"]',
        found=None,
        resolution='name its hosts, or a preset, as in preset = "github"',
    )


def _places(
    table: CredentialTable,
    where: Place,
    preset: CredentialPreset | None,
    host: str,
    given: Injection | None,
) -> tuple[CredentialPlace, ...]:
    """How one host takes the credential: as the table says, or else as the preset does."""
    if given is not None:
        return (CredentialPlace(host=host, injection=given),)
    if preset is None:
        raise where.error(
            f'credential "{table.name}" does not say where in a request it goes',
            expected=f"inject = {EXPECTED}",
            found=None,
            resolution='for most APIs: inject = "bearer"',
        )
    places = preset.places_of(host)
    if table.paths and any(place.paths for place in places):
        raise where.item("paths").error(
            f'preset "{table.preset}" goes by paths itself',
            expected="inject beside paths, or no paths",
            found=table.paths,
        )
    return places


def _binding(text: str, injection: Injection, where: Place, paths: tuple[str, ...]) -> Binding:
    try:
        destination = parse_destination(text)
    except PatternError as error:
        raise where.error(error.reason, expected=error.expected, found=text) from None
    if destination.transport is Transport.TCP or destination.ports == {80}:
        raise where.error(
            "a credential goes into HTTPS requests alone", expected='"host" or "host:port"', found=text
        )
    return Binding(
        pattern=destination.pattern,
        injection=injection,
        ports=destination.ports or frozenset({TLS_PORT}),
        paths=paths,
    )


def _placeholder(table: CredentialTable, where: Place, preset: CredentialPreset | None, seed: str) -> str:
    text = table.placeholder or (preset.shape if preset else placeholder.DEFAULT_SHAPE)
    if text in placeholder.SHAPES:
        return placeholder.make(text, hashlib.sha256(seed.encode("utf-8", "surrogateescape")).digest())
    long_enough = PLACEHOLDER_LEAST_CHARACTERS <= len(text) <= _PLACEHOLDER_MOST_CHARACTERS
    if not long_enough or not _PLACEHOLDER.fullmatch(text):
        raise where.item("placeholder").error(
            "this is neither a shape nor a placeholder",
            expected=f"one of {', '.join(placeholder.SHAPES)}; or at least {PLACEHOLDER_LEAST_CHARACTERS} letters, "
            "digits and _.~-",
            found=text,
            resolution=nearest(text, placeholder.SHAPES),
        )
    return text


def _repository(text: str, where: Place) -> str:
    if not _REPOSITORY.fullmatch(text) or any(part in (".", "..") for part in text.split("/")):
        raise where.error("this names no repository", expected='"owner/name" or "owner/*"', found=text)
    return text.lower().removesuffix(".git")


def _glob(text: str, where: Place) -> str:
    try:
        return parse_glob(text)
    except PatternError as error:
        raise where.error(error.reason, expected=error.expected, found=text) from None
