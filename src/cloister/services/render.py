"""Render the engine's command lines for services (golden: tests/golden/services.txt).

Rule 1: no I/O. Values were judged by `config/services.py`; here they only find their places.
Rule 2: no variable of a service is an argument: all are in a file, which is one in memory (`start.py`).
Rule 3: a service is on a network of its repository's services without a way out (`--internal`), and asks no name
        server: a database's superuser can run commands in its container, and may be the agent. Only `unsafe_egress`
        gives more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cloister.policy.service import Service

LABEL_SERVICE = "dev.cloister.service"
LABEL_REPOSITORY = "dev.cloister.repository"
LABEL_CONFIGURATION = "dev.cloister.configuration"
LABEL_KEEP = "dev.cloister.keep"
_NO_NAME_SERVER = (
    "203.0.113.53"  # RFC 5737: routed nowhere. Docker's own resolver answers the services' names
)
_STOP_S = 10


def container(repository: str, name: str) -> str:
    """The container's name."""
    return f"cloister-service-{repository}-{name}"


def volume(repository: str, name: str) -> str:
    """The name of the volume that holds its data."""
    return f"cloister-service-{repository}-{name}"


def network(repository: str, *, unsafe_egress: bool = False) -> str:
    """The network of a repository's services, or of those that may reach the Internet."""
    return f"cloister-services-{repository}{'-egress' if unsafe_egress else ''}"


def configuration(service: Service) -> str:
    """What tells whether a running container is still the declared one."""
    text = json.dumps(service.document(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(service: Service, repository: str, variables: str) -> tuple[str, ...]:
    """Start a service; `variables` is the path of the file with its environment."""
    labels = {
        LABEL_SERVICE: service.name,
        LABEL_REPOSITORY: repository,
        LABEL_CONFIGURATION: configuration(service),
        LABEL_KEEP: "true" if service.keep else "false",
    }
    argv = ["run", "--detach", "--pull", "never", "--name", container(repository, service.name)]
    for key, value in labels.items():
        argv += ["--label", f"{key}={value}"]
    argv += ["--network", network(repository, unsafe_egress=service.unsafe_egress)]
    argv += ["--network-alias", service.name, "--hostname", service.name]
    if service.unsafe_egress:
        for port in service.ports:
            argv += ["--publish", f"127.0.0.1::{port}"]
    else:
        argv += ["--dns", _NO_NAME_SERVER]
    argv += ["--security-opt", "no-new-privileges", "--env-file", variables]
    if service.volume:
        argv += ["--mount", f"type=volume,source={volume(repository, service.name)},target={service.volume}"]
    return (*argv, service.image, *service.command)


def network_create(repository: str, *, unsafe_egress: bool) -> tuple[str, ...]:
    """Make the network."""
    internal = () if unsafe_egress else ("--internal",)
    name = network(repository, unsafe_egress=unsafe_egress)
    return ("network", "create", "--label", f"{LABEL_REPOSITORY}={repository}", *internal, name)


def listing(repository: str) -> tuple[str, ...]:
    """The ids of a repository's services, running or not."""
    return ("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={LABEL_REPOSITORY}={repository}")


def stop(name: str) -> tuple[str, ...]:
    """Let it write what it has to; it is killed after a while."""
    return ("stop", "--time", str(_STOP_S), name)


def remove(name: str) -> tuple[str, ...]:
    """Remove a container and what is in no named volume."""
    return ("rm", "--force", "--volumes", name)


def environment_file(variables: Mapping[str, bytes]) -> bytes:
    """The text of `--env-file`. ValueError for a value that would become several lines."""
    for name, value in variables.items():
        if any(byte in value for byte in b"\0\r\n"):
            raise ValueError(f"the value of {name} is not text in one line")
    return b"".join(name.encode() + b"=" + value + b"\n" for name, value in variables.items())
