"""What an engine says of a container (`inspect`), for what services need of it. Docker's words and Podman's.

Rule 1: no I/O, and nothing is believed that is not of the expected shape: what is missing reads as "not running".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container. `health` is empty if its image has no check; `published` from its port to 127.0.0.1's."""

    name: str
    status: str  # "running", "exited", "created" …
    exit_code: int
    health: str  # "starting", "healthy", "unhealthy"
    image_id: str
    labels: Mapping[str, str]
    addresses: Mapping[str, str]  # by network
    published: Mapping[int, int]

    @property
    def runs(self) -> bool:
        return self.status == "running"


def containers(text: bytes) -> tuple[Container, ...]:
    """The containers of an `inspect`. ValueError if that is none."""
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("the engine's answer is not a list of containers")
    return tuple(_container(one) for one in found if isinstance(one, dict))


def gateways(text: bytes) -> tuple[str, ...]:
    """The addresses that the engine's machine has on a network, by its `network inspect`."""
    found = json.loads(text)
    network = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
    docker = _table(network, "IPAM").get("Config") or []
    subnets = [*docker, *(network.get("subnets") or [])]
    named = [one.get("Gateway") or one.get("gateway") for one in subnets if isinstance(one, dict)]
    return tuple(one for one in named if isinstance(one, str) and _is_address(one))


def _container(data: dict[str, Any]) -> Container:  # Any: the engine's JSON
    state, settings = _table(data, "State"), _table(data, "NetworkSettings")
    health = _table(state, "Health") or _table(state, "Healthcheck")
    networks = _table(settings, "Networks")
    return Container(
        name=str(data.get("Name", "")).removeprefix("/"),
        status=str(state.get("Status", "")),
        exit_code=int(state.get("ExitCode") or 0),
        health=str(health.get("Status") or "").removeprefix("none"),
        image_id=str(data.get("Image", "")).removeprefix("sha256:"),
        labels={str(key): str(value) for key, value in _table(_table(data, "Config"), "Labels").items()},
        addresses={
            str(name): address
            for name, one in networks.items()
            if isinstance(one, dict) and _is_address(address := str(one.get("IPAddress") or ""))
        },
        published=_published(_table(settings, "Ports")),
    )


def _published(ports: Mapping[str, Any]) -> dict[int, int]:
    found: dict[int, int] = {}
    for name, places in ports.items():
        number, _, protocol = name.partition("/")
        for place in places or ():
            # Other addresses of the machine may be its own in a VM; those lead to the loopback everywhere.
            if protocol in ("", "tcp") and place.get("HostIp") in ("127.0.0.1", "0.0.0.0", ""):  # noqa: S104
                found.setdefault(int(number), int(place["HostPort"]))
    return found


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
