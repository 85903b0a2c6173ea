"""The [git] and [ssh] tables: what may be pushed, which SSH addresses become HTTPS ones, which keys may sign.

Rule 1: nothing may be pushed, and no key signs, unless it stands here.
Rule 2: where two files disagree, the stricter one counts: a project's file does not loosen what the user's says.
Rule 3: a forwarded agent needs the keys and the hosts by name, so that it is never "all of them".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cloister.config.credentials import TLS_PORT, Found
from cloister.config.load import Loaded
from cloister.config.place import Place, place_of
from cloister.config.preset import Preset
from cloister.errors import UntrustedInputError
from cloister.policy.decide import treatment
from cloister.policy.names import parse_host
from cloister.types import Deny, Policy, PushRule

_OTHER_FORGES = ("bitbucket.org", "codeberg.org")
_REF = re.compile(r"refs(?:/[A-Za-z0-9_.*@+=-]+)+")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def push_of(files: Sequence[Loaded]) -> PushRule:
    """What may be pushed: the refs of all files."""
    tables = [file.document.git for file in files]
    refs = [
        _ref(ref, place_of(file, "git", "push", index))
        for file in files
        for index, ref in enumerate(file.document.git.push)
    ]
    return PushRule(
        refs=tuple(dict.fromkeys(refs)),
        delete=_agreed(table.delete for table in tables),
        force=_agreed(table.force for table in tables),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """What the user's SSH agent does for the sandbox; nothing if `agent` is false."""

    agent: bool
    keys: tuple[str, ...]
    hosts: tuple[str, ...]
    confirm: bool

    def document(self) -> dict[str, object]:
        """The plan's "ssh" value."""
        return {
            "agent": self.agent,
            "keys": list(self.keys),
            "hosts": list(self.hosts),
            "confirm": self.confirm,
        }


def signing_of(files: Sequence[Loaded]) -> Signing:
    """The merged [ssh] tables. Keys and hosts add up."""
    keys: list[str] = []
    hosts: list[str] = []
    for file in files:
        table = file.document.ssh
        keys += [_key(text, place_of(file, "ssh", "keys", index)) for index, text in enumerate(table.keys)]
        hosts += [
            _host(text, place_of(file, "ssh", "hosts", index)) for index, text in enumerate(table.hosts)
        ]
    agent = _agreed(file.document.ssh.agent for file in files)
    confirm = not _agreed(_inverted(file.document.ssh.confirm) for file in files)
    for name, values, example in (
        ("keys", keys, 'keys = ["SHA256:…"], as ssh-add -l prints it'),
        ("hosts", hosts, 'hosts = ["github.com"]'),
    ):
        if agent and not values:
            where = next(place_of(file, "ssh", "agent") for file in files if file.document.ssh.agent)
            raise where.error(f"an agent without {name} could sign nothing", expected=example, found=None)
    return Signing(
        agent=agent, keys=tuple(dict.fromkeys(keys)), hosts=tuple(dict.fromkeys(hosts)), confirm=confirm
    )


def forges_of(
    files: Sequence[Loaded],
    found: Sequence[Found],
    presets: Mapping[str, Preset],
    policy: Policy,
    signing: Signing,
) -> list[str]:
    """Hosts whose SSH addresses git is to read as HTTPS ones: forges that can be reached, and those with a password.

    Not those that a forwarded agent signs for, unless ssh_to_https says so: who forwards one wants SSH there.
    """
    said = [file.document.git.ssh_to_https for file in files if file.document.git.ssh_to_https is not None]
    if said and not said[-1]:
        return []
    names = [name for preset in presets.values() for name in preset.git]
    names += [name for one in found for name in one.git]
    return [
        name
        for name in dict.fromkeys([*names, *_OTHER_FORGES])
        if (said or not signing.agent or name not in signing.hosts)
        and not isinstance(treatment(policy, parse_host(name), TLS_PORT), Deny)
    ]


def _agreed(said: Iterable[bool | None]) -> bool:
    """Whether what loosens is wanted: by one file at least, and refused by none."""
    words = [word for word in said if word is not None]
    return bool(words) and all(words)


def _inverted(said: bool | None) -> bool | None:
    return None if said is None else not said


def _ref(text: str, where: Place) -> str:
    parts = text.split("/")
    if (
        not _REF.fullmatch(text)
        or ".." in text
        or any(part.startswith(".") or part.endswith((".", ".lock")) for part in parts)
        or any("**" in part and part != "**" for part in parts)
    ):
        plain = re.fullmatch(r"[A-Za-z0-9_*./-]+", text) and not text.startswith("refs/")
        raise where.error(
            "this is no ref",
            expected='a full name; "*" for characters of a part, "**" for parts: "refs/heads/agent/*"',
            found=text,
            resolution=f'did you mean "refs/heads/{text}"?' if plain else "",
        )
    return text


def _key(text: str, where: Place) -> str:
    if text.startswith("SHA256:") and not _FINGERPRINT.fullmatch(text.rstrip("=")):
        raise where.error(
            "this is no fingerprint of a key",
            expected='"SHA256:" and 43 characters, as ssh-add -l prints it',
            found=text,
        )
    if not text.strip() or not text.isprintable() or len(text) > 256:
        raise where.error(
            "this names no key", expected='"SHA256:…", or the comment that ssh-add -l prints', found=text
        )
    return text.rstrip("=") if text.startswith("SHA256:") else text


def _host(text: str, where: Place) -> str:
    try:
        return parse_host(text).name
    except UntrustedInputError as error:
        raise where.error(str(error), expected='a name, as in "github.com"', found=text) from None
