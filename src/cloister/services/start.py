"""Start the services of a plan, wait until they are ready, and say where they are.

Rule 1: whatever fails, nothing stays that was not there: the sandbox is no user then, and what nobody uses is stopped.
Rule 2: secrets are fetched only for what is started, and reach the engine by a file in memory (memfd_create(2)).
Rule 3: one at a time for each repository; a container that others use is never replaced under them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from cloister.errors import HostError
from cloister.images import engine as engines
from cloister.images.engine import Engine
from cloister.policy.service import Service
from cloister.sandbox.registry import Process
from cloister.secret import Secret
from cloister.secrets import source
from cloister.services import call, place, ready, render, stop
from cloister.services.inspected import Container
from cloister.services.place import Place
from cloister.services.users import Users
from cloister.system import proc
from cloister.values import dataclass

_PULL_S = 1800.0
_RUN_S = 120.0
_CHECK_S = 10.0
_POLL_S = 0.1
_OUTPUT_LIMIT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """For whom services are started. `untrusted`: where the sandbox can write."""

    users: Users
    environ: Mapping[str, str]
    untrusted: tuple[str, ...]
    tell: Callable[[str], None]
    upstream_ca: tuple[str, ...] = ()
    runtime: str | None = None  # the plan's, if it is an engine

    def engine(self) -> Engine:
        """The one that runs them already, the plan's, or the first that answers. The lock is held."""
        in_use = bool(self.users.live()) or self.users.held
        found = call.find(
            self.environ, self.untrusted, (self.users.engine if in_use else None) or self.runtime
        )
        self.users.use_engine(found.name)
        return found


def ensure(
    services: Sequence[Service], start: Start, *, sandbox_id: str, session: Process
) -> dict[str, dict[str, object]]:
    """Make `services` run and the sandbox a user of them; their entries in the plan's "hosts". HostError.

    `stop.release` is the other end, and may be called without this, or twice.
    """
    with start.users.locked():
        engine = start.engine()
        start.users.add(sandbox_id, session)
        try:
            return _started(engine, services, start, others=_others(start.users, sandbox_id))
        except BaseException:
            start.users.remove(sandbox_id)
            stop.unused(engine, start.users, start.tell)
            raise


def hold(services: Sequence[Service], start: Start) -> dict[str, dict[str, object]]:
    """Make `services` run until `stop.by_hand`, as `cloister services start` does."""
    with start.users.locked():
        engine = start.engine()
        held = start.users.held
        start.users.hold()
        try:
            return _started(engine, services, start, others=start.users.live())
        except BaseException:
            if not held:
                start.users.let_go()
            stop.unused(engine, start.users, start.tell)
            raise


def _others(users: Users, sandbox_id: str) -> tuple[str, ...]:
    return tuple(one for one in users.live() if one != sandbox_id)


def _started(
    engine: Engine, services: Sequence[Service], start: Start, *, others: tuple[str, ...]
) -> dict[str, dict[str, object]]:
    begun = time.monotonic()
    secrets = {service.name: _run(engine, service, start, others) for service in services}
    return {
        service.name: _wait(engine, service, start, secrets[service.name], begun).pin()
        for service in services
    }


def _name(service: Service, repository: str) -> str:
    return render.container(repository, service.name) if service.is_ours else service.container


def _run(engine: Engine, service: Service, start: Start, others: tuple[str, ...]) -> tuple[Secret, ...]:
    """Start a service if it does not run as declared; the secrets that it was given."""
    name = _name(service, start.users.repository)
    found = call.container(engine, name)
    if not service.is_ours:
        if found is None or not found.runs:
            raise HostError(
                f'the container "{name}" of service "{service.name}" does not run',
                resolution=f"start it (docker compose up -d), or see: {engine.name} ps --all",
            )
        return ()
    image = _image(engine, service, start)
    if found is not None and found.runs and _is_current(found, service, image, others):
        return ()
    if found is not None:
        if found.runs and others:
            raise HostError(
                f'service "{service.name}" runs with another configuration, and is in use',
                details=f"used by: {', '.join(others)}",
                resolution="end those sandboxes first, or declare it in the same way in each worktree",
            )
        call.must(
            engine, render.remove(name), f'the old container of service "{service.name}" cannot be removed'
        )
    return _run_anew(engine, service, start, name)


def _is_current(found: Container, service: Service, image: str, others: tuple[str, ...]) -> bool:
    """Whether what runs is what is declared. A newer image waits until nobody uses the old one."""
    same = found.labels.get(render.LABEL_CONFIGURATION) == render.configuration(service)
    return same and (found.image_id == image or bool(others))


def _image(engine: Engine, service: Service, start: Start) -> str:
    """The image's id; pulled if the engine lacks it."""
    found = engines.image_id(engine, service.image)
    if found is None:
        start.tell(f"pulling the image {service.image} for service {service.name}")
        call.must(
            engine,
            ("pull", "--quiet", service.image),
            f'there is no image "{service.image}" for service "{service.name}", and it cannot be pulled',
            timeout_s=_PULL_S,
        )
        found = engines.image_id(engine, service.image) or ""
    return found.removeprefix("sha256:")


def _run_anew(engine: Engine, service: Service, start: Start, name: str) -> tuple[Secret, ...]:
    values = {key: _fetch(service, key, text, start) for key, text in service.secrets.items()}
    variables = {key: text.encode() for key, text in service.environment.items()}
    variables |= {key: value.reveal() for key, value in values.items()}
    _make_network(engine, service, start.users.repository)
    descriptor = os.memfd_create("cloister-service", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, render.environment_file(variables))
        os.lseek(descriptor, 0, os.SEEK_SET)
        argv = render.run(service, start.users.repository, f"/proc/self/fd/{descriptor}")
        done = proc.capture(
            [engine.program, *argv],
            environment=engine.environment,
            timeout_s=_RUN_S,
            limit_bytes=_OUTPUT_LIMIT_BYTES,
            descriptors=(descriptor,),
        )
    except TimeoutError as error:
        raise _not_started(engine, service, str(error)) from None
    finally:
        os.close(descriptor)
    if done.code != 0:
        engine.ask(*render.remove(name))  # it may have been made, and not started
        raise _not_started(engine, service, call.last_lines(done.errors, 3))
    return tuple(values.values())


def _not_started(engine: Engine, service: Service, details: str) -> HostError:
    return HostError(
        f'service "{service.name}" (image {service.image}) could not be started',
        details=details,
        resolution=f"mend [services.{service.name}], or see: {engine.name} info",
    )


def _fetch(service: Service, variable: str, text: str, start: Start) -> Secret:
    """CredentialError if it cannot be had."""
    context = source.Context(
        name=f"{variable} of service {service.name}",
        environ=start.environ,
        upstream_ca=start.upstream_ca,
        untrusted=start.untrusted,
    )
    return source.fetch(source.parse(text), context).secret


def _make_network(engine: Engine, service: Service, repository: str) -> None:
    name = render.network(repository, unsafe_egress=service.unsafe_egress)
    if engine.ask("network", "inspect", name).code != 0:
        argv = render.network_create(repository, unsafe_egress=service.unsafe_egress)
        call.must(engine, argv, f'the network "{name}" for services cannot be made')


def _wait(engine: Engine, service: Service, start: Start, secrets: tuple[Secret, ...], begun: float) -> Place:
    """Where it is, once it is ready. HostError if it is not in time, with what it printed last."""
    name = _name(service, start.users.repository)
    told = False
    while True:
        found = call.container(engine, name)
        where = place.find(engine, service, start.users.repository, found) if found and found.runs else None
        verdict = _look(engine, service, name, found, where)
        if isinstance(verdict, ready.Ready) and where is not None:
            return where
        reason = (
            verdict.reason if isinstance(verdict, ready.Waiting | ready.Failed) else "it has no address yet"
        )
        is_late = time.monotonic() - begun > service.health_timeout_s
        if isinstance(verdict, ready.Failed) or is_late:
            late = (
                f"was not ready within {service.health_timeout_s} s" if is_late else "does not become ready"
            )
            raise HostError(
                f'service "{service.name}" {late}: {reason}',
                details=call.log(engine, name, secrets) or "it has printed nothing",
                resolution=f"mend [services.{service.name}]: env, command, health or health_timeout",
            )
        if not told:
            start.tell(f"waiting for service {service.name}: {reason}")
            told = True
        time.sleep(_POLL_S)


def _look(
    engine: Engine, service: Service, name: str, found: Container | None, where: Place | None
) -> ready.Verdict:
    probes = (
        {} if where is None else {port: call.probe(where.address, real) for port, real in where.ports.items()}
    )
    code = None
    if service.health == "command" and where is not None:
        try:
            code = engine.ask("exec", name, *service.health_command, timeout_s=_CHECK_S).code
        except TimeoutError:
            code = None
    return ready.judge(service, found, probes, code)
