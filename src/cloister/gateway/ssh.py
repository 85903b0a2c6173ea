"""Give the sandbox the user's SSH agent, filtered (sshagent/), if the configuration says so."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cloister.audit.log import Event
from cloister.sshagent import known_hosts
from cloister.sshagent.filter import AgentRules
from cloister.sshagent.server import AgentServer
from cloister.types import Credential

if TYPE_CHECKING:
    from cloister.gateway.services import Services

NAME = "ssh-agent"  # for `cloister approve`


def start(
    listener: socket.socket,
    plan: object,
    services: Services,
    *,
    environ: Mapping[str, str],
    tell: Callable[[str], None],
) -> AgentServer:
    """Serve the filtered agent on a listening socket that the session has made; `plan` is the plan's "ssh"."""
    hosts = _texts(plan, "hosts")
    host_keys = known_hosts.keys(user_known_hosts(environ), hosts)
    if not host_keys:
        tell(
            f"your known_hosts has no key of {', '.join(hosts)}: the SSH agent signs for none (connect once yourself)"
        )
    asks = Credential(
        name=NAME,
        source="",
        bindings=(),
        placeholder="",
        confirm=isinstance(plan, dict) and plan.get("confirm") is True,
    )

    async def confirm(key: str) -> bool:
        return await services.vault.allowed(asks, f"a log-in with the key {key}")

    def log(text: str) -> None:
        services.record.event(Event(kind="sign", text=text))

    server = AgentServer(
        environ.get("SSH_AUTH_SOCK", ""),
        AgentRules(keys=frozenset(_texts(plan, "keys")), host_keys=host_keys),
        confirm=confirm,
        log=log,
    )
    server.start(listener)
    return server


def user_known_hosts(environ: Mapping[str, str]) -> str:
    """What the user's own ssh knows; empty if there is no such file."""
    try:
        with open(
            os.path.join(environ.get("HOME", "/"), ".ssh", "known_hosts"), encoding="utf-8", errors="replace"
        ) as file:
            return file.read(8 << 20)
    except OSError:
        return ""


def _texts(plan: object, key: str) -> list[str]:
    found = plan.get(key) if isinstance(plan, dict) else None
    return [str(one) for one in found] if isinstance(found, list) else []
