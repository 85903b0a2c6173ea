"""How a Docker engine is reached: the endpoint that its client has chosen, and whether others can read along.

Rule 1: what cannot be found out is taken for a socket of this host's, as it is where nothing has been configured.
"""

from __future__ import annotations

import json

from cloister.system import proc
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT = "unix:///var/run/docker.sock"
_ASK_S = 30.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """An endpoint as Docker writes it (`unix://`, `ssh://`, `tcp://`), and whether TLS proves who answers there.

    `context` names it where a context of the client's has been chosen, not DOCKER_HOST or the default one.
    """

    endpoint: str = DEFAULT
    tls: bool = False
    context: str = ""

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket of this host's, behind which is this host, or a virtual machine of it."""
        return self.endpoint.startswith("unix:")

    @property
    def is_confidential(self) -> bool:
        """Whether what is said stays between the two: values of credentials are."""
        scheme, _, rest = self.endpoint.partition("://")
        if scheme in ("unix", "ssh", "fd", "npipe"):
            return True
        authority = rest.partition("/")[0].rpartition("@")[2]
        host = authority[1:].partition("]")[0] if authority.startswith("[") else authority.partition(":")[0]
        return self.tls or host in _LOOPBACK


def look(program: str, environment: Mapping[str, str]) -> Way:
    """Ask Docker's client, which knows its contexts."""
    try:
        said = proc.run(
            [program, "context", "inspect", "--format", "{{json .}}"],
            environment=environment,
            timeout_s=_ASK_S,
        ).output
    except OSError:  # TimeoutError too
        said = b""
    return of_context(said, environment)


def of_context(said: bytes, environment: Mapping[str, str]) -> Way:
    """What a description of the current context says; DOCKER_HOST where the client describes none."""
    asked = environment.get("DOCKER_HOST") or DEFAULT
    try:
        context = json.loads(said)
        found = context["Endpoints"]["docker"]
        endpoint = str(found["Host"]) or asked
        unchecked = found.get("SkipTLSVerify") is True
        material = bool((context.get("TLSMaterial") or {}).get("docker"))
        name = "" if environment.get("DOCKER_HOST") else str(context["Name"])
    except (ValueError, KeyError, TypeError, AttributeError):
        endpoint, unchecked, material, name = asked, False, False, ""
    # DOCKER_TLS alone encrypts, and asks nobody who they are.
    checked = bool(environment.get("DOCKER_TLS_VERIFY")) if environment.get("DOCKER_HOST") else material
    return Way(endpoint=endpoint, tls=checked and not unchecked, context="" if name == "default" else name)
