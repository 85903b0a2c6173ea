"""Give the sandbox the user's SSH agent, filtered (sshagent/), if the configuration says so."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cloister.audit.log import Event
from cloister.gateway.control_server import bind
from cloister.sshagent import known_hosts
from cloister.sshagent.filter import AgentRules
from cloister.sshagent.server import AgentServer
from cloister.types import Credential

if TYPE_CHECKING:
    from cloister.gateway.services import Services

SOCKET = "ssh-agent.sock"  # in the public directory
NAME = "ssh-agent"  # for `cloister approve`


def start(
    plan: Mapping[str, object],
    services: Services,
    *,
    environ: Mapping[str, str],
    public_directory: str,
    tell: Callable[[str], None],
) -> AgentServer | None:
    """Serve, if there is an agent to forward; else say why not. OSError if the socket cannot be made."""
    hosts = _texts(plan, "hosts")
    upstream = environ.get("SSH_AUTH_SOCK", "")
    if not upstream:
        tell("there is no SSH agent to forward: SSH_AUTH_SOCK is not set here")
        return None
    host_keys = known_hosts.keys(user_known_hosts(environ), hosts)
    if not host_keys:
        tell(
            f"your known_hosts has no key of {', '.join(hosts)}: the SSH agent signs for none (connect once yourself)"
        )
    asks = Credential(name=NAME, source="", bindings=(), placeholder="", confirm=plan.get("confirm") is True)

    async def confirm(key: str) -> bool:
        return await services.vault.allowed(asks, f"a log-in with the key {key}")

    def log(text: str) -> None:
        services.record.event(Event(kind="sign", text=text))

    server = AgentServer(
        upstream,
        AgentRules(keys=frozenset(_texts(plan, "keys")), host_keys=host_keys),
        confirm=confirm,
        log=log,
    )
    path = os.path.join(public_directory, SOCKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bind(listener, path)
        os.chmod(path, 0o666)  # noqa: S103 - as root the agent is another uid; only the sandbox sees the directory
        listener.listen(8)
    except BaseException:
        listener.close()
        raise
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


def _texts(plan: Mapping[str, object], key: str) -> list[str]:
    found = plan.get(key)
    return [str(one) for one in found] if isinstance(found, list) else []
