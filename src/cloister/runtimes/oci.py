"""The docker and podman runtimes: a holder container owns the exit-less namespace, the agent's container joins it.

    run holder ─▶ it calls ─▶ its sockets go to the gateway ─▶ start agent ─▶ all is mounted ─▶ let its command run
    create agent ─────────────────────────────────────────────┘   (docker makes both at once, podman in this order)

Rule 1: the agent starts once every socket listens in the namespace, and never in a network of the engine's.
Rule 2: what is made is removed by name, by `remove`, whatever has become of it; names say whose it is, as do labels.
Rule 3: the engine's containers hold no state: read-only roots; home and workspace are the host's.
Rule 4: as root, the user's files are bound through ID-mapped mounts (staging.py, docs/adr/0060): the agent is not root.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress

from cloister.errors import CloisterError, HostError
from cloister.network import holder as holder_program
from cloister.runtimes import oci_argv, oci_exec_argv, oci_failures, oci_files, oci_image, staging
from cloister.runtimes.engine import DOCKER, Engine
from cloister.runtimes.oci_holder import Line
from cloister.runtimes.oci_runtime import Runtime
from cloister.sandbox.image import Image
from cloister.sandbox.spec import SandboxSpec
from cloister.system import files, proc
from cloister.values import dataclass

START_TIMEOUT_S = 60.0
_REMOVE_S = 60.0
_NEVER = "0001-01-01"  # Go's time zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a start needs beside the spec. Descriptors stay the caller's; `directory` + suffixes are made and removed.

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
    attached: bool
    terminal: bool
    unset: tuple[str, ...] = ()  # variables that the image may set in vain


class Running:
    """A started sandbox. `client` is the engine's command that ends when the agent does; `init` its first process."""

    def __init__(self, how: Launch, line: Line) -> None:
        self.engine, self.names, self.line = how.engine, how.names, line
        self.attached = how.attached
        self.client: subprocess.Popen[bytes] | None = None
        self.init: int | None = None
        self._gate = how.public_directory if how.image.has_sh else None

    def release(self) -> None:
        """Let the command run. Called once, when it has been looked at."""
        if self._gate is None:
            return
        with suppress(OSError):  # ENXIO: it has ended; the wait tells why
            descriptor = os.open(f"{self._gate}/{oci_argv.GO}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(descriptor, b"go\n")
            os.close(descriptor)
        for name in (oci_argv.GO, oci_argv.READY):
            files.remove(f"{self._gate}/{name}")

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
        self.line.close()
        if self.client is not None:
            with suppress(OSError):
                proc.reap(self.client, timeout_s=_REMOVE_S)


def start(spec: SandboxSpec, how: Launch) -> Running:
    """Start the sandbox, its command held back (`Running.release`). CloisterError if the engine does not allow it."""
    spec = oci_files.place(spec, f"{how.directory}.files", ca_bundle=how.ca_bundle)
    spec = _stage(spec, how)
    line = Line(f"{how.directory}.holder")
    starting = _Starting(spec, how, line)
    running = Running(how, line)
    try:
        starting.holder_and_agent()
        ready = _make_gate(how) if how.image.has_sh else None
        running.client = starting.agent(ready)
        running.init = _init(how)
        staging.detach(f"{how.directory}.mounts")
    except BaseException:
        starting.abandon()
        running.kill()
        raise
    return running


def remove(engine: Engine, names: oci_exec_argv.Names) -> None:
    """End and remove both containers. Idempotent; HostError if the engine does not do it."""
    for arguments in oci_argv.remove(engine.name, names):
        done = engine.ask(*arguments, timeout_s=_REMOVE_S)
        said = done.errors.decode(errors="replace")
        if done.code and not oci_failures.is_missing_container(said):
            raise oci_failures.failure(engine.name, "remove the sandbox's containers", said)


def left_over(engine: Engine, sandbox: str = "") -> dict[str, str]:
    """Containers that are there: name → sandbox, of one sandbox or of all."""
    done = engine.ask(*oci_argv.containers_of(sandbox))
    lines = done.output.decode(errors="replace").splitlines() if done.code == 0 else []
    return dict(line.split(maxsplit=1) for line in lines if line.count(" ") == 1)


def remove_files(directory: str) -> None:
    """Remove what `start` has made beside a sandbox's record. Idempotent."""
    staging.detach(f"{directory}.mounts")
    files.remove_tree(f"{directory}.files")
    files.remove_tree(f"{directory}.holder")


def _stage(spec: SandboxSpec, how: Launch) -> SandboxSpec:
    if os.geteuid() != 0:
        return spec
    directory = f"{how.directory}.mounts"
    os.mkdir(directory, 0o700)
    staged = staging.plan(spec, directory=directory, public=(f"{how.directory}.files", how.public_directory))
    staging.attach(staged)
    return staging.rebase(spec, staged)


def _make_gate(how: Launch) -> int:
    """The two FIFOs of the gate; returns the end that becomes readable when everything is mounted."""
    for name in (oci_argv.READY, oci_argv.GO):
        os.mkfifo(f"{how.public_directory}/{name}")
        os.chmod(f"{how.public_directory}/{name}", 0o666)  # noqa: S103 - as root the agent is another uid
    return os.open(f"{how.public_directory}/{oci_argv.READY}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _init(how: Launch) -> int | None:
    """The agent's first process, as a number of this host; None where the engine's processes are not seen here."""
    done = how.engine.ask("inspect", "--type=container", "--format={{.State.Pid}}", how.names.agent)
    text = done.output.decode(errors="replace").strip()
    return int(text) if text.isdigit() and text != "0" else None


class _Starting:
    """The commands of one start, those that run at the same time included."""

    def __init__(self, spec: SandboxSpec, how: Launch, line: Line) -> None:
        self._spec, self._how, self._line = spec, how, line
        self._host = host(how.engine)
        self._deadline = time.monotonic() + START_TIMEOUT_S
        self._children: list[subprocess.Popen[bytes]] = []

    def holder_and_agent(self) -> None:
        """Make both; the holder's sockets have been passed on when this returns."""
        how = self._how
        together = how.engine.name == DOCKER  # podman looks for the container that it is to join
        creating = self._create_agent() if together else None
        holder = self._begin(self._holder())
        try:
            self._take_call(holder)
        except _MissingImageError:
            self._line_again(holder)
        self._finish(holder, "start the container that holds the sandbox's network")
        self._finish(creating or self._create_agent(), "make the sandbox's container")

    def agent(self, ready: int | None) -> subprocess.Popen[bytes]:
        """Start the agent; the engine's command that ends with it."""
        how = self._how
        argv = oci_argv.start_agent(how.names, attached=how.attached)
        try:
            if how.attached:
                client = proc.begin(how.engine.argv(argv), environment=how.engine.environment, attached=True)
                self._await_ready(ready, client)
                return client
            self._finish(self._begin(argv), "start the sandbox's container")
            client = self._begin(oci_argv.wait_container(how.names.agent))
            self._await_ready(ready, client)
            self._children.remove(client)
            return client
        finally:
            if ready is not None:
                os.close(ready)

    def abandon(self) -> None:
        """End what still runs."""
        for child in self._children:
            child.kill()
            child.communicate()
        self._children = []

    def _holder(self) -> list[str]:
        how = self._how
        wanted = oci_argv.Holder(
            image=how.runtime.tag,
            argv=how.runtime.argv,
            library_path=how.runtime.library_path,
            directory=f"{how.directory}.holder",
            target=holder_program.DIRECTORY,
            hostname=self._spec.hostname,
            seccomp=how.seccomp,
        )
        return oci_argv.run_holder(how.names, wanted, self._host)

    def _create_agent(self) -> subprocess.Popen[bytes]:
        how = self._how
        text, others = oci_exec_argv.environment_file(self._spec.environment)
        set_here = dict(self._spec.environment)  # the user may set what the image may not
        others = tuple((name, value) for name, value in others if name not in how.engine.environment)
        descriptor = os.memfd_create("cloister-environment")
        try:
            os.write(descriptor, text)
            os.lseek(descriptor, 0, os.SEEK_SET)
            agent = oci_argv.Agent(
                image=how.image.id if how.engine.name == DOCKER else how.image.reference,
                seccomp=how.seccomp,
                environment=descriptor,
                passed=tuple(name for name, _ in others),
                unset=tuple(name for name in how.unset if name not in {**how.engine.environment, **set_here}),
                terminal=how.terminal,
                stdin=how.attached,
                gated=how.image.has_sh,
                has_sh=how.image.has_sh,
            )
            argv = oci_argv.create_agent(how.names, self._spec, agent, self._host)
            return self._begin(argv, descriptor, environment=dict(others))
        finally:
            os.close(descriptor)

    def _take_call(self, holder: subprocess.Popen[bytes]) -> None:
        """Wait until the holder calls, and take its sockets. _MissingImageError if there is no runtime image yet."""
        pidfd = os.pidfd_open(holder.pid)
        try:
            ready = self._poll(self._line.fileno(), pidfd)
            if self._line.fileno() not in ready:
                done = proc.finish(holder, timeout_s=self._left_s())
                self._children.remove(holder)
                said = done.errors.decode(errors="replace")
                if done.code and oci_failures.is_missing_image(said):
                    raise _MissingImageError
                if done.code:
                    raise oci_failures.failure(
                        self._how.engine.name, "start the container that holds the sandbox's network", said
                    )
                self._await_call()
        finally:
            os.close(pidfd)
        self._line.accept(self._how.bound, self._how.gateway)

    def _await_call(self) -> None:
        """The holder runs, and has not called yet: until it does. HostError if it ends before."""
        how = self._how
        watching = self._begin(oci_argv.wait_container(how.names.holder))
        pidfd = os.pidfd_open(watching.pid)
        try:
            ready = self._poll(self._line.fileno(), pidfd)
        finally:
            os.close(pidfd)
        if not ready:
            raise _hangs(how.engine)
        if self._line.fileno() not in ready:
            done = how.engine.ask(*oci_argv.last_words(how.names.holder))
            raise HostError(
                "the container that holds the sandbox's network ended before it had set it up",
                details=oci_failures.last_lines((done.output + done.errors).decode(errors="replace")),
                resolution="run: cloister doctor; or do without containers: --runtime embedded",
            )
        watching.kill()
        watching.communicate()
        self._children.remove(watching)

    def _line_again(self, holder: subprocess.Popen[bytes]) -> None:
        """Bring the runtime image in, and start the holder once more."""
        del holder
        oci_image.import_runtime(self._how.engine, self._how.runtime)
        self._deadline = time.monotonic() + START_TIMEOUT_S
        again = self._begin(self._holder())
        try:
            self._take_call(again)
        except _MissingImageError:
            raise HostError(
                f"{self._how.engine.name} does not find the image {self._how.runtime.tag!r} that it has just taken",
                resolution=f"see whether the engine is well: {self._how.engine.name} images",
            ) from None
        self._finish(again, "start the container that holds the sandbox's network")

    def _await_ready(self, ready: int | None, client: subprocess.Popen[bytes]) -> None:
        """Until everything is mounted, or the command has ended (the wait tells why)."""
        if ready is None:
            return
        pidfd = os.pidfd_open(client.pid)
        try:
            if not self._poll(ready, pidfd):
                raise _hangs(self._how.engine)
        finally:
            os.close(pidfd)

    def _begin(
        self, arguments: list[str], *descriptors: int, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        engine = self._how.engine
        child = proc.begin(
            engine.argv(arguments),
            environment={**(environment or {}), **engine.environment},
            descriptors=descriptors,
        )
        self._children.append(child)
        return child

    def _finish(self, child: subprocess.Popen[bytes], doing: str) -> None:
        if child not in self._children:
            return
        try:
            done = proc.finish(child, timeout_s=self._left_s())
        except TimeoutError:
            raise _hangs(self._how.engine) from None
        finally:
            self._children.remove(child)
        if done.code:
            said = done.errors.decode(errors="replace")
            raise oci_failures.failure(self._how.engine.name, doing, said, image=self._how.image.reference)

    def _poll(self, *descriptors: int) -> set[int]:
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(self._left_s() * 1000)}

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


class _MissingImageError(Exception):
    """The engine does not have the runtime image."""


def host(engine: Engine) -> oci_argv.Host:
    """What argv depend on of an engine."""
    return oci_argv.Host(
        engine=engine.name,
        rootless=engine.rootless,
        remapped=engine.remapped,
        limits=engine.limits,
        has_init=engine.has_init,
        init=engine.init,
        cpus=os.cpu_count() or 1,
        ipv6=os.path.exists("/proc/sys/net/ipv6"),
    )


def _hangs(engine: Engine) -> CloisterError:
    return HostError(
        f"the {engine.name} engine did not start the sandbox within {START_TIMEOUT_S:g} s",
        resolution=f"see whether the engine is well: {engine.name} info",
    )
