"""Start a sandbox in a container engine: the engine's commands in their order, some of them at the same time.

Rule 1: every wait has the start's deadline, and notices when what is waited for can no longer come.
Rule 2: whatever fails, nothing of a command of ours runs on; containers are removed by name (oci.py).
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping

from cloister.errors import CloisterError, HostError
from cloister.network import holder as holder_program
from cloister.runtimes import (
    oci_argv,
    oci_exec_argv,
    oci_failures,
    oci_files,
    oci_image,
    oci_runtime,
    staging,
)
from cloister.runtimes.engine import DOCKER, Engine
from cloister.runtimes.oci import Launch, Running, host
from cloister.runtimes.oci_holder import Line
from cloister.sandbox.spec import SandboxSpec
from cloister.system import proc

START_TIMEOUT_S = 60.0
_CALL_S = 0.5  # a holder that runs calls within this; else somebody must watch it


class Starting:
    """One start: the holder begins at construction. Then `start`, or `abandon`."""

    def __init__(self, how: Launch) -> None:
        self._how = how
        self._host = host(how.engine)
        self._deadline = time.monotonic() + START_TIMEOUT_S
        self._children: list[subprocess.Popen[bytes]] = []
        self._line = Line(f"{how.directory}.holder") if how.passed is None else None
        self._holder = self._begin(self._run_holder())

    def start(self, spec: SandboxSpec) -> Running:
        """Start the sandbox, its command held back (`Running.release`). CloisterError if the engine refuses."""
        how = self._how
        running = Running(how, self._line)
        try:
            spec = oci_files.place(spec, f"{how.directory}.files", ca_bundle=how.ca_bundle)
            spec = _stage(spec, how) if how.put is None else how.put(spec)
            self._both(spec)
            running.client = self._agent(_make_gate(how) if how.gated else None)
            if how.gated:  # it waits at the gate, all mounted; else `remove_files` does it in the end
                staging.detach(f"{how.directory}.mounts")
        except BaseException:
            self.abandon()
            running.kill()
            raise
        return running

    def abandon(self) -> None:
        """End what still runs of the engine's commands; what they have made is removed by name."""
        for child in self._children:
            child.kill()
            child.communicate()
        self._children = []
        if self._line is not None:
            self._line.close()

    def _both(self, spec: SandboxSpec) -> None:
        """Make both containers; the holder's sockets have been passed on when this returns."""
        together = self._how.engine.name == DOCKER  # podman looks for the container that it is to join
        creating = self._create_agent(spec) if together else None
        if self._line is None:
            self._finish(self._holder, "start the container that holds the sandbox's network")
            self._await_passed()
        else:
            try:
                self._take_call(self._holder, self._line)
            except _MissingImageError:
                self._import_and_run_again(self._line)
            self._finish(self._holder, "start the container that holds the sandbox's network")
        self._finish(creating or self._create_agent(spec), "make the sandbox's container")

    def _agent(self, ready: int | None) -> subprocess.Popen[bytes]:
        """Start the agent; the engine's command that ends with it."""
        how = self._how
        argv = oci_argv.start_agent(how.names, attached=how.attached)
        try:
            if how.attached:
                client = proc.begin(how.engine.argv(argv), environment=how.engine.environment, attached=True)
                self._await_ready(ready, client)
                return client
            if not how.engine.start(how.names.agent, timeout_s=self._left_s()):
                self._finish(self._begin(argv), "start the sandbox's container")
            client = self._begin(oci_argv.wait_container(how.names.agent))
            self._await_ready(ready, client)
            self._children.remove(client)
            return client
        finally:
            if ready is not None:
                os.close(ready)

    def _run_holder(self) -> list[str]:
        how = self._how
        wanted = oci_argv.Holder(
            image=how.runtime.tag,
            argv=how.runtime.command(oci_runtime.HOLDER),
            library_path=how.runtime.library_path,
            directory=f"{how.directory}.holder",
            target=holder_program.DIRECTORY,
            hostname=how.hostname,
            seccomp=how.seccomp,
            volume=how.names.volume if self._line is None else "",
        )
        return oci_argv.run_holder(how.names, wanted, self._host)

    def _create_agent(self, spec: SandboxSpec) -> subprocess.Popen[bytes]:
        how = self._how
        text, others = oci_exec_argv.environment_file(spec.environment)
        others = tuple((name, value) for name, value in others if name not in how.engine.environment)
        set_here = dict(spec.environment)  # the user may set what the image may not
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
                gated=how.gated,
                has_sh=how.image.has_sh,
            )
            argv = oci_argv.create_agent(how.names, spec, agent, self._host)
            return self._begin(argv, descriptor, environment=dict(others))
        finally:
            os.close(descriptor)

    def _take_call(self, holder: subprocess.Popen[bytes], line: Line) -> None:
        """Wait until the holder calls, and take its sockets. _MissingImageError if there is no runtime image yet."""
        pidfd = os.pidfd_open(holder.pid)
        try:
            ready = self._poll(line.fileno(), pidfd)
            if line.fileno() not in ready:
                done = proc.finish(holder, timeout_s=self._left_s())
                self._children.remove(holder)
                said = done.errors.decode(errors="replace")
                if done.code and oci_failures.is_missing_image(said):
                    raise _MissingImageError
                if done.code:
                    raise oci_failures.failure(
                        self._how.engine.name, "start the container that holds the sandbox's network", said
                    )
                self._await(line.fileno(), lambda: True)
        finally:
            os.close(pidfd)
        line.accept(self._how.bound, self._how.gateway)

    def _await_passed(self) -> None:
        """The holder runs: until the gateway, in its container, has its sockets. CloisterError if one of them ends."""
        passed = self._how.passed
        if passed is not None and not passed():
            self._await(self._how.gateway.fileno(), passed)

    def _await(self, descriptor: int, arrived: Callable[[], bool]) -> None:
        """The holder runs, and has not called yet: until `arrived`, asked when the descriptor can be read, says so.

        HostError if the holder ends before.
        """
        how = self._how
        if self._poll(descriptor, limit_s=_CALL_S) and arrived():
            return
        watching = self._begin(oci_argv.wait_container(how.names.holder))
        pidfd = os.pidfd_open(watching.pid)
        try:
            while True:
                ready = self._poll(descriptor, pidfd)
                if descriptor not in ready or arrived():
                    break
        finally:
            os.close(pidfd)
        if not ready:
            raise _hangs(how.engine)
        if descriptor not in ready:
            done = how.engine.ask(*oci_argv.last_words(how.names.holder))
            raise HostError(
                "the container that holds the sandbox's network ended before it had set it up",
                details=oci_failures.last_lines((done.output + done.errors).decode(errors="replace")),
                resolution="run: cloister doctor; or do without containers: --runtime embedded",
            )
        watching.kill()
        watching.communicate()
        self._children.remove(watching)

    def _import_and_run_again(self, line: Line) -> None:
        """Bring the runtime image in, and start the holder once more."""
        oci_image.import_runtime(self._how.engine, self._how.runtime)
        self._deadline = time.monotonic() + START_TIMEOUT_S
        self._holder = self._begin(self._run_holder())
        try:
            self._take_call(self._holder, line)
        except _MissingImageError:
            raise HostError(
                f"{self._how.engine.name} does not find the image {self._how.runtime.tag!r} that it has just taken",
                resolution=f"see whether the engine is well: {self._how.engine.name} images",
            ) from None

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

    def _poll(self, *descriptors: int, limit_s: float = START_TIMEOUT_S) -> set[int]:
        poll = select.poll()
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(min(limit_s, self._left_s()) * 1000)}

    def _left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())


class _MissingImageError(Exception):
    """The engine does not have the runtime image."""


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


def _hangs(engine: Engine) -> CloisterError:
    return HostError(
        f"the {engine.name} engine did not start the sandbox within {START_TIMEOUT_S:g} s",
        resolution=f"see whether the engine is well: {engine.name} info",
    )
