"""What credentials may not share with each other, nor with the rest of the configuration.

Rule 1: two credentials for the same place of the same host are refused: order never chooses (ATTACKS ID-12). They are
        two places if no request could get both: other paths, or other repositories.
Rule 2: nothing may bring into the sandbox what a placeholder keeps out of it: a passed variable, a readable file.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.config.credentials import Found
from cloister.config.injection import slot
from cloister.config.settings import Settings, host_path
from cloister.policy.match import overlaps
from cloister.policy.paths import globs_overlap
from cloister.types import Binding, Credential, Rule, Transport


def check_together(found: Sequence[Found]) -> None:
    """Two of one name, with one placeholder or variable, or for one place of one host."""
    for number, one in enumerate(found):
        for other in found[:number]:
            _check_names(one, other)
            _check_places(one, other)


def check_exposed(found: Sequence[Found], settings: Settings, home: str) -> None:
    """Neither a variable nor a file may carry the real value into the sandbox."""
    for one in found:
        scheme, _, argument = one.credential.source.partition(":")
        secret = {*one.environment, *([argument] if scheme == "env" else [])}
        if passed := sorted(secret.intersection(settings.pass_environment)):
            name = passed[0]
            raise one.place.error(
                f'pass_env (or -e {name}) would bring the real value of credential "{one.credential.name}" into the '
                "sandbox",
                expected=f'"{name}" in one of them',
                found=None,
                resolution=f'remove "{name}" from pass_env',
            )
        if scheme == "file":
            path = host_path(argument, one.place.item("source"), home)
            for readable in settings.read_only:
                if f"{path}/".startswith(f"{readable}/"):
                    raise one.place.item("source").error(
                        f"the sandbox can read this file, as [sandbox] read_only opens {readable!r}",
                        expected="a file that it cannot read",
                        found=path,
                        resolution="keep it elsewhere, or narrow read_only",
                    )


def check_readable(found: Sequence[Found], grants: Sequence[Rule]) -> None:
    """No credential where any bytes pass: it could not be put into them."""
    for one in found:
        for binding in one.credential.bindings:
            for grant in grants:
                if (
                    grant.transport is Transport.TCP
                    and grant.ports & binding.ports
                    and overlaps(grant.pattern, binding.pattern)
                ):
                    raise one.place.error(
                        f'"{grant.id}" lets any bytes pass to "{binding.pattern}", so credential '
                        f'"{one.credential.name}" could not be put into them',
                        expected="a rule without tcp:// for that host and port",
                        found=None,
                    )


def _check_names(one: Found, other: Found) -> None:
    mine, theirs = one.credential, other.credential
    if mine.name.lower() == theirs.name.lower():
        raise one.place.item("name").error(
            "two credentials have this name", expected="a name for each", found=mine.name
        )
    if mine.placeholder in theirs.placeholder or theirs.placeholder in mine.placeholder:
        raise one.place.item("placeholder").error(
            f'its placeholder cannot be told from that of "{theirs.name}"',
            expected="one for each",
            found=mine.placeholder,
        )
    if shared := sorted(set(one.environment) & set(other.environment)):
        raise one.place.item("env").error(
            f'"{shared[0]}" would hold the placeholders of "{theirs.name}" and of "{mine.name}"',
            expected='a variable for each, as in env = "OTHER_TOKEN", or env = [] for none',
            found=None,
        )


def _check_places(one: Found, other: Found) -> None:
    if not _share_a_repository(one.credential, other.credential):
        return
    for mine in one.credential.bindings:
        for theirs in other.credential.bindings:
            if _share_a_request(mine, theirs):
                raise one.place.error(
                    f'credentials "{other.credential.name}" and "{one.credential.name}" both go into '
                    f'{slot(mine.injection)} of requests to "{mine.pattern}"',
                    expected="one credential for one place of a host",
                    found=None,
                    resolution="remove one of them, or give them different hosts, paths or repositories",
                )


def _share_a_request(mine: Binding, theirs: Binding) -> bool:
    """Whether some request would get both at the same place."""
    same_place = slot(mine.injection) and slot(mine.injection) == slot(theirs.injection)
    same_host = mine.ports & theirs.ports and overlaps(mine.pattern, theirs.pattern)
    if not same_place or not same_host:
        return False
    pairs = ((one, other) for one in mine.paths for other in theirs.paths)
    return not (mine.paths and theirs.paths) or any(globs_overlap(one, other) for one, other in pairs)


def _share_a_repository(one: Credential, other: Credential) -> bool:
    if not one.repositories or not other.repositories:
        return True
    pairs = ((mine, theirs) for mine in one.repositories for theirs in other.repositories)
    return any(globs_overlap(f"/{mine}", f"/{theirs}") for mine, theirs in pairs)
