"""The [services.NAME] tables: containers that the sandbox reaches by name and port.

Rule 1: what becomes an argument of the engine's command line is judged here, wholly: no value of a file can be taken
        for an option, a second mount or another address.
Rule 2: a service of two files is the project's, whole: half of one with half of another would be neither.
Rule 3: a value that is secret has a source, as a credential has, and is not in the plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cloister.config.load import Loaded
from cloister.config.model import ServiceTable
from cloister.config.place import Place, place_of
from cloister.config.profiles import PROFILES
from cloister.errors import UntrustedInputError
from cloister.policy.match import PatternError, check_port
from cloister.policy.names import parse_host
from cloister.policy.service import DEFAULT_HEALTH_TIMEOUT_S, Health, Service
from cloister.secrets import source

NAME_LIMIT = 32
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
# The sandbox's own names (sandbox/view.py), and those that container engines give to the host.
_TAKEN = frozenset({"localhost", "cloister", "ip6-localhost", "ip6-loopback", "host", "gateway"})
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*")
_ENGINES_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_WAIT_S = 3600


def services_of(files: Sequence[Loaded], profile: str, pinned: Mapping[str, object]) -> tuple[Service, ...]:
    """The services of all files, sorted by name; none in a profile that reaches nothing declared."""
    found: dict[str, Service] = {}
    for file in files:
        for name, table in file.document.services.items():
            place = place_of(file, "services", name)
            found[name] = _service(name, table, place)
            if name in pinned:
                raise place.error(
                    f'[network.hosts] says that "{name}" is elsewhere', expected="one of the two", found=None
                )
    return tuple(found[name] for name in sorted(found)) if PROFILES[profile].declared else ()


def _service(name: str, table: ServiceTable, place: Place) -> Service:
    _check_name(name, place)
    ports = _ports(table, place)
    if table.compose_network is not None:
        return _of_compose(name, table, place, ports)
    if table.image is None:
        raise place.error(
            "a service needs an image, or the network and name of a container that is there already",
            expected='image = "postgres:16", or compose_network and container',
            found=None,
        )
    if table.container is not None:
        raise place.item("container").error(
            "it names a container of a compose network",
            expected="it together with compose_network",
            found=table.container,
        )
    health, command = _health(table, place)
    return Service(
        name=name,
        ports=ports,
        image=_image(table.image, place.item("image")),
        environment={key: _value(key, text, place.item("env")) for key, text in table.env.items()},
        secrets=_secrets(table, place),
        volume="" if table.volume is None else _path(table.volume, place.item("volume")),
        command=tuple(_words(table.command, place.item("command"))),
        health=health,
        health_command=command,
        health_timeout_s=_timeout(table.health_timeout, place.item("health_timeout")),
        keep=table.keep,
        unsafe_egress=table.unsafe_egress,
    )


def _of_compose(name: str, table: ServiceTable, place: Place, ports: tuple[int, ...]) -> Service:
    for key in ("image", "env", "env_from", "volume", "command", "health", "keep", "unsafe_egress"):
        if getattr(table, key):
            raise place.item(key).error(
                "the container is there already, so this has no effect",
                expected="compose_network, container and ports alone",
                found=None,
            )
    network = table.compose_network or ""
    for key, text in (("compose_network", network), ("container", table.container or "")):
        if not _ENGINES_NAME.fullmatch(text):
            raise place.item(key).error(
                "this names no network or container" if text else f'"{key}" is missing',
                expected='names as "docker network ls" and "docker ps" print them: "acme_default", "acme-db-1"',
                found=text or None,
            )
    return Service(
        name=name,
        ports=ports,
        environment={},
        secrets={},
        health="tcp",
        health_timeout_s=_timeout(table.health_timeout, place.item("health_timeout")),
        keep=True,
        compose_network=network,
        container=table.container or "",
    )


def _check_name(name: str, place: Place) -> None:
    expected = f'small letters, digits and "-", at most {NAME_LIMIT}, as in "postgres"'
    try:
        parse_host(name)
    except UntrustedInputError as error:
        raise place.error(str(error), expected=expected, found=name) from None
    if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        raise place.error("this is no name for a service", expected=expected, found=name)
    if name in _TAKEN:
        raise place.error(
            f'"{name}" has a meaning of its own in a sandbox', expected="another name", found=name
        )


def _ports(table: ServiceTable, place: Place) -> tuple[int, ...]:
    given = [*([] if table.port is None else [table.port]), *table.ports]
    if not given:
        raise place.error("a service needs the port that it listens on", expected="port = 5432", found=None)
    try:
        return tuple(sorted({check_port(port) for port in given}))
    except PatternError as error:
        raise place.item("ports" if table.ports else "port").error(
            error.reason, expected=error.expected, found=given
        ) from None


def _image(text: str, place: Place) -> str:
    if not _IMAGE.fullmatch(text) or len(text) > 255:
        raise place.error(
            "this is no reference of an image",
            expected='a name with a tag or a digest, as in "postgres:16"',
            found=text,
        )
    return text


def _secrets(table: ServiceTable, place: Place) -> dict[str, str]:
    found = {}
    for name, text in table.env_from.items():
        where = place.item("env_from").item(name)
        _check_variable(name, where)
        if name in table.env:
            raise where.error(f'"{name}" stands in env too', expected="one of the two", found=None)
        try:
            found[name] = str(source.parse(text))
        except source.SourceError as error:
            raise where.error(error.reason, expected=error.expected, found=text) from None
    return found


def _value(name: str, text: str, place: Place) -> str:
    _check_variable(name, place.item(name))
    if any(character in text for character in "\0\r\n"):
        raise place.item(name).error(
            "a variable of a service is text in one line", expected="a text without line breaks", found=text
        )
    return text


def _check_variable(name: str, place: Place) -> None:
    if not _VARIABLE.fullmatch(name):
        raise place.error(
            "this is no name of an environment variable", expected="letters, digits and _", found=name
        )


def _path(text: str, place: Place) -> str:
    parts = text.split("/")[1:]
    plain = text.startswith("/") and parts != [""] and text.isprintable() and not set(text) & set(',:"')
    if not plain or ".." in parts or "" in parts[:-1]:
        raise place.error(
            "this is no directory of a container",
            expected='an absolute path, as in "/var/lib/postgresql/data"',
            found=text,
        )
    return text.rstrip("/")


def _health(table: ServiceTable, place: Place) -> tuple[Health, tuple[str, ...]]:
    if table.health is None:
        return "image", ()
    if table.health == "tcp":
        return "tcp", ()
    where = place.item("health")
    expected = '"tcp", or a command as a list, as in ["pg_isready", "-U", "postgres"]'
    if not isinstance(table.health, list):
        raise where.error("this is no check of a service's health", expected=expected, found=table.health)
    texts = [one for one in table.health if isinstance(one, str)]
    if len(texts) != len(table.health) or not texts or not texts[0]:
        raise where.error("this is no command", expected=expected, found=table.health)
    return "command", tuple(_words(texts, where))


def _words(texts: Sequence[str], place: Place) -> Sequence[str]:
    for index, text in enumerate(texts):
        if "\0" in text:
            raise place.item(index).error(
                "an argument cannot hold a NUL", expected="a text without it", found=text
            )
    return texts


def _timeout(value: int | None, place: Place) -> int:
    if value is None:
        return DEFAULT_HEALTH_TIMEOUT_S
    if not 1 <= value <= _LONGEST_WAIT_S:
        raise place.error(
            "this time is out of range", expected=f"1 to {_LONGEST_WAIT_S} seconds", found=value
        )
    return value
