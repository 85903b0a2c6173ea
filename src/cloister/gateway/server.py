"""The gateway process: serve the sandbox's connections until the session goes away.

Rule 1: loading must not compete with the start of the sandbox: asyncio comes when there is something to do
        (`patience.py`), and this module imports nothing that is slow.
Rule 2: it forgets nothing on purpose and keeps nothing alive: when the control socket ends, so does the
        process.
"""

from __future__ import annotations

import socket

from cloister.gateway import control
from cloister.gateway.authority import Authority
from cloister.gateway.patience import Packet
from cloister.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.gateway.home import Home


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStart:
    """What the session hands over. `control` is owned from now on."""

    sandbox_id: str
    plan: dict[str, object]
    audit_path: str
    control: socket.socket
    public_directory: str
    host_roots: str | None
    environ: dict[str, str] = field(default_factory=dict)  # the user's: sources of credentials need it
    untrusted: tuple[
        str, ...
    ] = ()  # directories that the sandbox can write: no program of a source is taken from there
    control_path: str = ""  # where other commands of the user ask and answer (control_server.py)
    home: Home | None = None  # the host, of a gateway that runs elsewhere


def serve(start: GatewayStart, authority: Authority, packets: list[Packet]) -> int:
    """Run the gateway, beginning with the `packets` that have come already.

    Returns the exit code: 0 when the session ended it, 1 if it could not start.
    """
    try:
        received = tuple(control.parse(data, descriptors) for data, descriptors in packets)
        from cloister.gateway import (
            asyncio_without_ssl,  # noqa: F401 - must come before all that imports asyncio
            daemon,
        )

        return daemon.run(start, authority, received)
    except Exception as error:  # the session must hear of it; it stops the sandbox
        _tell_failure(start.control, error)
        return 1


def upstream_ca(plan: dict[str, object]) -> list[str]:
    """The paths of the user's own root certificates."""
    paths = plan.get("upstream_ca", [])
    return [str(path) for path in paths] if isinstance(paths, list) else []


def _tell_failure(connection: socket.socket, error: Exception) -> None:
    control.send(connection, "failed", f"{type(error).__name__}: {error}"[:2000])
