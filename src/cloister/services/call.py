"""Ask the engine about services, and tell clearly when it says no.

Rule 1: what containers and engines print comes from strangers: it is shown with control characters escaped, cut, and
        with the secrets masked that were given to the container.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

from cloister.config.wording import visible
from cloister.engines.client import NAMES, PODMAN
from cloister.errors import HostError
from cloister.images import engine as engines
from cloister.images.engine import Engine
from cloister.secret import Secret
from cloister.services import inspected, render
from cloister.services.inspected import Container
from cloister.services.ready import Probe

ENGINE_S = 60.0
_LOG_LINES = 15
_LOG_LIMIT_BYTES = 1 << 20
_LINE_LIMIT_CHARACTERS = 300
_CONNECT_S = 2.0
_SETTLE_S = 0.2  # an engine's own proxy takes any connection, and ends it when it finds nobody behind


def find(environ: Mapping[str, str], untrusted: Sequence[str], wanted: str | None) -> Engine:
    """The engine for services: the one that is `wanted`, else the first that answers. HostError.

    No program is taken from where the sandbox can write.
    """
    if wanted in NAMES:
        return engines.find(wanted, environ, untrusted=untrusted)
    try:
        return engines.find(None, environ, untrusted=untrusted)
    except HostError as first:
        try:
            return engines.find(PODMAN, environ, untrusted=untrusted)
        except HostError:
            raise first from None


def must(engine: Engine, argv: Sequence[str], what: str, *, timeout_s: float = ENGINE_S) -> bytes:
    """What it prints. HostError, beginning with `what`, if it fails."""
    try:
        done = engine.ask(*argv, timeout_s=timeout_s)
    except TimeoutError as error:
        raise HostError(
            what, details=str(error), resolution=f"see what this says: {engine.name} info"
        ) from None
    if done.code != 0:
        raise HostError(
            what, details=last_lines(done.errors, 3), resolution=f"see what this says: {engine.name} info"
        )
    return done.output


def container(engine: Engine, name: str) -> Container | None:
    """One container, or None if there is none of that name."""
    done = engine.ask("container", "inspect", name)
    if done.code != 0:
        return None
    found = inspected.containers(done.output)
    return found[0] if found else None


def of_repository(engine: Engine, repository: str) -> tuple[Container, ...]:
    """The containers of a repository's services."""
    ids = must(engine, render.listing(repository), "the engine does not list its containers").split()
    if not ids:
        return ()
    names = [one.decode() for one in ids]
    done = engine.ask("container", "inspect", *names)  # one may have gone meanwhile: the others are printed
    return inspected.containers(done.output or b"[]")


def log(engine: Engine, name: str, secrets: Sequence[Secret]) -> str:
    """The last lines that a container has printed, for an error."""
    done = engine.ask("logs", "--tail", str(_LOG_LINES), name)
    text = (done.output + done.errors)[-_LOG_LIMIT_BYTES:]
    for secret in secrets:
        text = text.replace(secret.reveal(), b"***")
    return last_lines(text, _LOG_LINES)


def last_lines(text: bytes, count: int) -> str:
    """For people."""
    lines = text.decode(errors="replace").strip().splitlines()[-count:]
    return "\n".join(visible(line.strip())[:_LINE_LIMIT_CHARACTERS] for line in lines)


def is_here(address: str) -> bool:
    """Whether `address` is this machine's own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def probe(address: str, port: int) -> Probe:
    """Connect, and see whether the connection stays."""
    try:
        with socket.create_connection((address, port), _CONNECT_S) as sock:
            sock.settimeout(_SETTLE_S)
            try:
                return Probe.OPEN if sock.recv(1, socket.MSG_PEEK) else Probe.CLOSED
            except TimeoutError:
                return Probe.OPEN  # it waits for us to speak
    except (ConnectionRefusedError, ConnectionResetError):
        return Probe.REFUSED
    except OSError:
        return Probe.UNREACHABLE
