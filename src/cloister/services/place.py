"""Where the gateway dials a service: an address and ports that lead to that container and to nothing else.

Rule 1: a container's own address counts only if its network's gateway is an address of this machine: behind a VM or a
        rootless engine the same numbers are somebody else's here.
Rule 2: the answer names each port. The gateway dials no other at that address (`gateway/upstream.py`).
"""

from __future__ import annotations

from cloister.errors import HostError
from cloister.images.engine import Engine
from cloister.policy.service import Service
from cloister.services import call, inspected, render
from cloister.services.inspected import Container
from cloister.values import dataclass

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An address, and the real port for each of the service's."""

    address: str
    ports: dict[int, int]

    def pin(self) -> dict[str, object]:
        """The entry in the plan's "hosts"."""
        return {
            "address": self.address,
            "port": None,
            "ports": {str(port): real for port, real in self.ports.items()},
        }


def find(engine: Engine, service: Service, repository: str, container: Container) -> Place:
    """Where the service is. HostError if this machine cannot reach it."""
    if service.is_ours and not service.unsafe_egress:
        network = render.network(repository)
    else:
        published = {port: container.published[port] for port in service.ports if port in container.published}
        if len(published) == len(service.ports):
            return Place(address=LOOPBACK, ports=published)
        network = service.compose_network or render.network(repository, unsafe_egress=True)
    address = container.addresses.get(network)
    if address is None:
        joined = ", ".join(sorted(container.addresses)) or "none"
        raise HostError(
            f'the container "{container.name}" of service "{service.name}" has no address on the network "{network}"',
            details=f"its networks: {joined}",
            resolution=f"see: {engine.name} network inspect {network}",
        )
    described = call.must(
        engine, ("network", "inspect", network), f'the network "{network}" cannot be looked at'
    )
    if not any(call.is_here(one) for one in inspected.gateways(described)):
        raise HostError(
            f'service "{service.name}" is where this machine cannot reach it',
            details=f"the {engine.name} engine has networks of its own (rootless, in a VM, remote, or Podman with CNI)",
            resolution=_way_on(service),
        )
    return Place(address=address, ports={port: port for port in service.ports})


def _way_on(service: Service) -> str:
    if not service.is_ours:
        port = service.ports[0]
        return f'publish it on the loopback, in the compose file: ports: ["127.0.0.1::{port}"]'
    return (
        f"[services.{service.name}] unsafe_egress = true publishes it on the loopback; it may reach the Internet then, "
        "and so may an agent that can make it run commands"
    )
