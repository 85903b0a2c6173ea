"""The docker and podman runtimes: a holder container owns the exit-less namespace, the agent's container joins it.

    run holder ─▶ it calls ─▶ its sockets go to the gateway ─▶ start agent ─▶ all is mounted ─▶ let its command run
    create agent ─────────────────────────────────────────────┘   (docker makes both at once, podman in this order)

Rule 1: the agent starts once every socket listens in the namespace, and never in a network of the engine's.
Rule 2: what is made is removed by name, by `remove`, whatever has become of it; names say whose it is, as do labels.
Rule 3: the engine's containers hold no state: read-only roots; home and workspace are the host's, or in volumes where
        the engine has none of the host's files (oci_remote.py).
Rule 4: as root, the user's files are bound through ID-mapped mounts (staging.py, docs/adr/0060): the agent is not root.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress

from cloister.errors import HostError
from cloister.network import holder
from cloister.runtimes import oci_argv, oci_exec_argv, oci_failures, oci_image, oci_volumes, staging
from cloister.runtimes.engine import Engine
from cloister.runtimes.oci_holder import Line
from cloister.runtimes.oci_runtime import Runtime
from cloister.sandbox.image import Image
from cloister.sandbox.spec import SandboxSpec
from cloister.system import files, proc
from cloister.values import dataclass

_REMOVE_S = 60.0
_ATTEMPTS = 2  # to remove a container
_CALL_S = 0.5  # a holder that runs calls within this; else somebody must watch it
GATEWAY_DIRECTORY = "/run/cloister-gateway"  # outpost/main.py's
_GATE_PAUSE_S = 0.002  # between what the script does before and at the gate
_NEVER = "0001-01-01"  # Go's time zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a start needs beside the spec. Descriptors stay the caller's; `directory` + suffixes are made, and removed.

    `attached`: the command has the caller's standard streams, and `terminal` if they are one.
    """

    engine: Engine
    names: oci_exec_argv.Names
    image: Image
    runtime: Runtime
    seccomp: str
    directory: str
    public_directory: str
    ca_bundle: int
    gateway: socket.socket
    bound: list[tuple[int, list[int]]]
    passed: Callable[[], bool] | None = (
        None  # a gateway in a container: whether it has all sockets. CloisterError
    )
    put: Callable[[SandboxSpec], SandboxSpec] | None = (
        None  # an engine on another machine: give it the files (oci_remote.py)
    )
    attached: bool
    terminal: bool
    hostname: str
    unset: tuple[str, ...] = ()  # variables that the image may set in vain

    @property
    def gated(self) -> bool:
        """Whether the command is held back until it is looked at: by the image's shell, at a FIFO of this host's."""
        return self.image.has_sh and self.engine.local


class Running:
    """A started sandbox. `client` is the engine's command that ends when the agent does; `init` its first process."""

    def __init__(self, how: Launch, line: Line | None) -> None:
        self.engine, self.names, self.line = how.engine, how.names, line
        self.attached = how.attached
        self.client: subprocess.Popen[bytes] | None = None
        self.held = how.gated  # the command waits for `release`
        self._gate = how.public_directory if how.gated else None

    def release(self) -> None:
        """Let the command run. Called once, when it has been looked at."""
        if self._gate is None:
            return
        descriptor = self._open_gate()
        if descriptor is not None:
            with suppress(OSError):  # it has ended; the wait tells why
                os.write(descriptor, b"go\n")
            os.close(descriptor)
        for name in (oci_argv.GO, oci_argv.READY):
            files.remove(f"{self._gate}/{name}")

    def _open_gate(self) -> int | None:
        """Open the gate's end, once the command waits there: it has said that it will. None if it ended before."""
        if self.client is None:
            return None
        pidfd = os.pidfd_open(self.client.pid)
        try:
            while True:
                try:
                    return os.open(f"{self._gate}/{oci_argv.GO}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                except OSError as error:  # ENXIO: nobody waits there yet
                    if error.errno != errno.ENXIO or select.select([pidfd], [], [], _GATE_PAUSE_S)[0]:
                        return None
        finally:
            os.close(pidfd)

    def init(self) -> int | None:
        """The agent's first process, as a number of this host; None where it has ended, or is not seen here."""
        if not self.engine.local:
            return None  # the number is another kernel's
        match self.engine.look_up("containers", self.names.agent):
            case {"State": {"Pid": int(pid)}}:
                return pid or None
        done = self.engine.ask("inspect", "--type=container", "--format={{.State.Pid}}", self.names.agent)
        text = done.output.decode(errors="replace").strip()
        return int(text) if text.isdigit() and text != "0" else None

    def signal(self, number: int) -> bool:
        """Send a signal to the command by way of the engine, where its process is not seen here."""
        self.engine.ask("kill", f"--signal={number}", self.names.agent)
        return True

    def exit_code(self) -> int:
        """How the agent ended, in the engine's words. HostError if the engine does not know any more."""
        template = "{{.State.Running}} {{.State.ExitCode}} {{.State.StartedAt}}"
        done = self.engine.ask("inspect", "--type=container", f"--format={template}", self.names.agent)
        words = done.output.decode(errors="replace").split()
        if done.code or len(words) < 3:
            raise oci_failures.failure(
                self.engine.name, "say how the sandbox ended", done.errors.decode(errors="replace")
            )
        if words[0] == "true":
            raise HostError(
                f"the connection to the {self.engine.name} engine broke, so the sandbox was stopped",
                resolution=f"see whether the engine is well: {self.engine.name} info",
            )
        if words[2].startswith(_NEVER):
            raise HostError(
                f"{self.engine.name} could not start the sandbox; its message stands above",
                resolution=f"see whether the engine is well: {self.engine.name} info",
            )
        return int(words[1])

    def kill(self) -> None:
        """End the sandbox, and wait until nothing of it runs. Idempotent."""
        remove(self.engine, self.names)
        if self.line is not None:
            self.line.close()
        if self.client is not None:
            with suppress(OSError):
                proc.reap(self.client, timeout_s=_REMOVE_S)


def host(engine: Engine) -> oci_argv.Host:
    """What argv depend on of an engine."""
    return oci_argv.Host(
        engine=engine.name,
        rootless=engine.rootless,
        remapped=engine.remapped,
        limits=engine.limits,
        has_init=engine.has_init,
        init=engine.init,
        cpus=engine.cpus or os.cpu_count() or 1,
        ipv6=not engine.local or os.path.exists("/proc/sys/net/ipv6"),
    )


def remove(engine: Engine, names: oci_exec_argv.Names) -> None:
    """End and remove the agent's container and the holder's. Idempotent; HostError if the engine does not do it."""
    _remove(engine, oci_argv.remove(engine.name, names))


def make_gateway_place(engine: Engine, names: oci_exec_argv.Names, runtime: Runtime) -> None:
    """What a gateway's container needs of the engine: its image, and the volume. HostError."""
    oci_image.ensure_runtime(engine, runtime)
    oci_volumes.make(engine, names.volume, sandbox=names.sandbox, project=names.project)


def gateway_argv(engine: Engine, names: oci_exec_argv.Names, runtime: Runtime, *, seccomp: str) -> list[str]:
    """The command line of the client that runs a gateway's container."""
    gateway = oci_argv.Gateway(
        image=runtime.tag,
        argv=runtime.argv,
        library_path=runtime.library_path,
        target=holder.DIRECTORY,
        directory=GATEWAY_DIRECTORY,
        seccomp=seccomp,
    )
    return engine.argv(oci_argv.run_gateway(names, gateway, host(engine)))


def remove_gateway(engine: Engine, names: oci_exec_argv.Names) -> None:
    """End and remove a gateway's container, and its volume. Idempotent; HostError."""
    _remove(engine, oci_argv.remove_gateway(names))


def _remove(engine: Engine, commands: list[list[str]]) -> None:
    for arguments in commands:
        # A busy engine gives up on a container whose end it has not seen in time; asked again, it has.
        for attempt in range(_ATTEMPTS):
            done = engine.ask(*arguments, timeout_s=_REMOVE_S)
            said = done.errors.decode(errors="replace")
            if not done.code or oci_failures.is_missing_container(said):
                break
            if attempt + 1 == _ATTEMPTS:
                raise oci_failures.failure(engine.name, "remove the sandbox's containers", said)


def remove_files(directory: str) -> None:
    """Remove what `start` has made beside a sandbox's record. Idempotent."""
    staging.detach(f"{directory}.mounts")
    files.remove_tree(f"{directory}.files")
    files.remove_tree(f"{directory}.holder")
    files.remove_tree(f"{directory}.home")
