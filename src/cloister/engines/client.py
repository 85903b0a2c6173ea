"""Find the command of a container engine, and the environment in which it is run.

Rule 1: the engine is whatever its own command reaches: contexts, DOCKER_HOST and rootless engines included.
Rule 2: its environment is written out: what concerns the engine, nothing else of the user's.
Rule 3: a program that a sandbox can write may be the agent's: it is no engine, nor a helper of one.
"""

from __future__ import annotations

import os

from cloister.sandbox.workspace import contains
from cloister.system import proc
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOCKER, PODMAN = "docker", "podman"
NAMES = (DOCKER, PODMAN)
# What builds and pulls may need in addition.
PROXIES = (
    "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
_PASSED = (
    "HOME", "USER", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR", "SSH_AUTH_SOCK",
    "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION",
    "CONTAINER_HOST", "CONTAINER_SSHKEY", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "STORAGE_DRIVER",
    "REGISTRY_AUTH_FILE", "BUILDX_BUILDER", "BUILDX_CONFIG", "DBUS_SESSION_BUS_ADDRESS",
)  # fmt: skip
_SYSTEM = tuple(proc.PATH.split(":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """The command of an engine that is installed; whether the engine answers is not known."""

    name: str
    program: str
    environment: Mapping[str, str]


def find(
    name: str, environ: Mapping[str, str], *, untrusted: Sequence[str], also: Sequence[str] = ()
) -> Client | None:
    """The client of that name on PATH, or None.

    `untrusted`: directories that a sandbox can write. `also`: more variables that it gets.
    """
    roots = tuple(os.path.realpath(root) for root in untrusted)
    path = _path(environ.get("PATH", proc.PATH), roots)
    environment = {key: environ[key] for key in (*_PASSED, *also) if key in environ}
    for directory in path:
        program = f"{directory}/{name}"
        if os.access(program, os.X_OK) and os.path.isfile(program) and not _within(program, roots):
            return Client(name=name, program=program, environment={**environment, "PATH": ":".join(path)})
    return None


def _path(path: str, roots: Sequence[str]) -> tuple[str, ...]:
    """PATH without what the agent can write, and without what depends on the directory."""
    kept = [entry for entry in path.split(":") if os.path.isabs(entry) and not _within(entry, roots)]
    return tuple(kept) or _SYSTEM


def _within(path: str, roots: Sequence[str]) -> bool:
    """Whether a path lies in one of them, as it is written or where its links lead."""
    return any(contains(root, place) for root in roots for place in (path, os.path.realpath(path)))
