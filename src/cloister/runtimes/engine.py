"""A container engine through its command line: which one, what it can do, and one of its commands.

Its command is found by `engines/client.py`. Rule 1: what an engine is does not change between two starts of it, so it
is asked once and kept; a start asks nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence

from cloister.engines import api, reached
from cloister.engines import client as clients
from cloister.errors import HostError
from cloister.runtimes import oci_failures
from cloister.system import files, proc
from cloister.values import dataclass

DOCKER, PODMAN = clients.DOCKER, clients.PODMAN
INIT_PROGRAMS = (
    "/usr/libexec/podman/catatonit",
    "/usr/lib/podman/catatonit",
    "/usr/bin/catatonit",
    "/usr/bin/tini",
)
_ASK_S = 30.0
_QUESTIONS = {DOCKER: ("info", "--format", "{{json .}}"), PODMAN: ("info", "--format", "json")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine that has answered. `local`: it runs on this kernel and can pass descriptors to us. If not, `shares`: it
    is in a virtual machine of this host (Docker Desktop, OrbStack), which shows it this host's files. If neither, it is
    `remote`: on another machine, reached at `endpoint`, which is `confidential` if nobody on the way can read along.

    `limits`: control groups hold memory, CPUs and processes there. `init`: the program for podman's --init; empty where
    the engine brings its own, or there is none (`has_init`).
    """

    name: str
    program: str
    environment: Mapping[str, str]
    rootless: bool = False
    local: bool = True
    limits: bool = True
    remapped: bool = False  # Docker's userns-remap
    has_init: bool = True
    init: str = ""
    shares: bool = False
    machine: str = ""  # of one that is not local, the kind of processor, and how many
    cpus: int = 0
    endpoint: str = ""
    confidential: bool = True

    @property
    def remote(self) -> bool:
        """Whether it has none of this host's files."""
        return not self.local and not self.shares

    def argv(self, arguments: Sequence[str]) -> list[str]:
        """A command line of its client."""
        return [self.program, *arguments]

    def look_up(self, kind: str, name: str) -> dict[str, object] | None:
        """What it says itself of a container or an image (api.py); None: ask its client."""
        where = api.address(self.environment) if self.name == DOCKER else None
        return None if where is None else api.look_up(where, kind, name)

    def start(self, container: str, *, timeout_s: float) -> bool:
        """Start a container in the background; False: let its client do it, and say what is wrong."""
        where = api.address(self.environment) if self.name == DOCKER else None
        return where is not None and api.start(where, container, timeout_s=timeout_s)

    def ask(self, *arguments: str, timeout_s: float = _ASK_S, stdin: bytes = b"") -> proc.Finished:
        """Run one of its commands to the end. HostError if it hangs or is gone."""
        try:
            return proc.run(
                self.argv(arguments), environment=self.environment, timeout_s=timeout_s, stdin=stdin
            )
        except OSError as error:
            raise HostError(
                f"{self.name} cannot be asked: {error.strerror or error}",
                resolution=f"see whether it works: {self.name} ps",
            ) from error


def find(name: str, environ: Mapping[str, str], *, workspace: str, state_directory: str) -> Engine:
    """The engine of that name. HostError if there is none, or it does not answer."""
    client = clients.find(name, environ, untrusted=(workspace,))
    if client is None:
        raise oci_failures.missing(name)
    program, environment = client.program, client.environment
    key = _key(name, program, environment)
    stored = _load(f"{state_directory}/engine-{name}.json", key)
    if stored is None:
        stored = look(name, program, environment)
        files.make_private_directory(state_directory)
        files.write_atomic(
            f"{state_directory}/engine-{name}.json", json.dumps({"key": key, "facts": stored}).encode()
        )
    return Engine(
        name=name,
        program=program,
        environment={**environment, **_context(stored)},
        rootless=bool(stored["rootless"]),
        local=bool(stored["local"]),
        limits=bool(stored["limits"]),
        remapped=bool(stored["remapped"]),
        has_init=bool(stored["has_init"]),
        init=str(stored["init"]),
        shares=bool(stored.get("shares")),
        machine=str(stored.get("machine", "")),
        cpus=int(str(stored.get("cpus", 0))),
        endpoint=str(stored.get("endpoint", "")),
        confidential=bool(stored.get("confidential", True)),
    )


def again(name: str, program: str, environment: Iterable[tuple[str, str]]) -> Engine:
    """An engine that an earlier command has found, to remove or to fetch what is there."""
    return Engine(name=name, program=program, environment=dict(environment))


def _context(facts: Mapping[str, object]) -> dict[str, str]:
    """Names the engine that was looked at, whatever the user's current context is later."""
    return {"DOCKER_CONTEXT": str(facts["context"])} if facts.get("context") else {}


def look(name: str, program: str, environment: Mapping[str, str]) -> dict[str, object]:
    """Ask an engine what it is. HostError if it does not answer."""
    try:
        done = proc.run([program, *_QUESTIONS[name]], environment=environment, timeout_s=_ASK_S)
    except OSError as error:
        raise oci_failures.failure(name, "ask what it is", str(error)) from error
    said = done.errors.decode(errors="replace")
    try:
        answer = json.loads(done.output)
    except ValueError:
        answer = {}
    if name == DOCKER:
        if done.code or not answer.get(
            "KernelVersion"
        ):  # the client prints what it knows of itself all the same
            raise oci_failures.failure(
                name, "ask what it is", said or "\n".join(answer.get("ServerErrors") or ())
            )
        return _of_docker(answer, reached.look(program, environment))
    if done.code or "host" not in answer:
        raise oci_failures.failure(name, "ask what it is", said)
    return _of_podman(answer)


def _of_docker(answer: dict[str, object], way: reached.Way) -> dict[str, object]:
    options = [str(option) for option in _list(answer.get("SecurityOptions"))]
    cpus = answer.get("NCPU")
    # Desktop and OrbStack show a socket here, and run on a kernel of their own.
    local = answer["KernelVersion"] == os.uname().release and way.is_socket
    return {
        "rootless": any("name=rootless" in option for option in options),
        "remapped": any("name=userns" in option for option in options),
        "local": local,
        "limits": answer.get("MemoryLimit") is True and answer.get("PidsLimit") is not False,
        "has_init": True,
        "init": "",
        "version": str(answer.get("ServerVersion", "")),
        "shares": not local and way.is_socket,
        "machine": "" if local else str(answer.get("Architecture", "")),
        "cpus": cpus if isinstance(cpus, int) and not local else 0,
        "endpoint": way.endpoint,
        "confidential": way.is_confidential,
        "context": way.context,
    }


def _of_podman(answer: dict[str, object]) -> dict[str, object]:
    host = answer["host"]
    if not isinstance(host, dict):
        raise TypeError("podman info is not understood")
    security, version, store = host.get("security"), answer.get("version"), answer.get("store")
    init = next((path for path in INIT_PROGRAMS if os.access(path, os.X_OK)), "")
    controllers = [str(one) for one in _list(host.get("cgroupControllers"))]
    rootless = isinstance(security, dict) and security.get("rootless") is True
    return {
        "rootless": rootless,
        "remapped": False,
        "local": host.get("serviceIsRemote") is not True and host.get("kernel") == os.uname().release,
        "limits": not rootless or {"memory", "pids"} <= set(controllers),
        "has_init": bool(init),
        "init": init,
        "run_root": str(store.get("runRoot", "")) if isinstance(store, dict) else "",
        "version": str(version.get("Version", "")) if isinstance(version, dict) else "",
    }


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _key(name: str, program: str, environment: Mapping[str, str]) -> str:
    """Changes when another engine may answer: its program, how it is reached, and when it was started."""
    status = os.stat(program)
    seen = [program, str(status.st_mtime_ns), str(os.geteuid()), os.uname().release]
    seen += [f"{key}={value}" for key, value in environment.items() if key not in ("PATH", "SSH_AUTH_SOCK")]
    if name == DOCKER:
        config = environment.get("DOCKER_CONFIG") or f"{environment.get('HOME', '')}/.docker"
        seen += [files.read_text(f"{config}/config.json") or "", *_contexts(config)]
        address = environment.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        try:
            socket = os.stat(address.removeprefix("unix://"))
            seen.append(f"{socket.st_ino} {socket.st_ctime_ns}")
        except OSError:
            seen.append("no socket")
    return "\n".join(seen)


def _contexts(config: str) -> list[str]:
    """The descriptions of contexts, one of which config.json names: when each was written."""
    place = f"{config}/contexts/meta"
    try:
        return [
            f"{name} {os.stat(f'{place}/{name}/meta.json').st_mtime_ns}" for name in sorted(os.listdir(place))
        ]
    except OSError:
        return []


def _load(path: str, key: str) -> dict[str, object] | None:
    try:
        stored = json.loads(files.read(path) or b"null")
        return dict(stored["facts"]) if stored and stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
