"""Services of a project: what is declared of them, and the rules that let a sandbox reach them.

Rule 1: a service's name is one DNS label, so that it can never stand for a host of the world.
Rule 2: it is reached at its declared ports and at no other, as any bytes; what it is made of is the engine's matter
        (`services/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from cloister.types import HostPattern, Reach, Rule, Transport

Health = Literal["image", "tcp", "command"]
DEFAULT_HEALTH_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A container that is started for the project, from `image`; or, of `compose_network`, one that is there already.

    `secrets` are variables and the sources of their values, never the values. `health` "image": what the image's own
    check says, else "tcp", a connection; "command" runs `health_command` in the container.
    """

    name: str
    ports: tuple[int, ...]
    image: str = ""
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    volume: str = ""
    command: tuple[str, ...] = ()
    health: Health = "image"
    health_command: tuple[str, ...] = ()
    health_timeout_s: int = DEFAULT_HEALTH_TIMEOUT_S
    keep: bool = False
    unsafe_egress: bool = False
    compose_network: str = ""
    container: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether we start it."""
        return not self.compose_network

    def rule(self) -> Rule:
        """The grant of its name and ports."""
        return Rule(
            id=f"service:{self.name}",
            pattern=HostPattern(reach=Reach.EXACT, name=self.name),
            ports=frozenset(self.ports),
            transport=Transport.TCP,
            note=f"the container {self.container or self.image}, by name and port only",
        )

    def document(self) -> dict[str, object]:
        """The plan's entry."""
        return asdict(self)


def parse_document(entries: object) -> tuple[Service, ...]:
    """The plan's "services". TypeError, KeyError or ValueError if it is damaged."""
    if not isinstance(entries, list):
        raise TypeError('"services" in the plan is not a list')
    lists = ("ports", "command", "health_command")
    return tuple(Service(**{**entry, **{name: tuple(entry[name]) for name in lists}}) for entry in entries)
