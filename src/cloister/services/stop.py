"""Stop services that nobody uses any more, and those that the user wants stopped.

Rule 1: what `keep` or `cloister services start` holds runs on; all else stops with the last sandbox that uses it.
Rule 2: containers go, volumes stay: only `remove_volumes` takes data, and only the user calls it.
Rule 3: `release` never fails: a sandbox must end, whatever the engine says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloister.errors import CloisterError
from cloister.images.engine import Engine
from cloister.services import call, render
from cloister.services.inspected import Container
from cloister.services.users import Users, all_of


def release(
    state_directory: str, sandbox_id: str, environ: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """The sandbox uses services no more. Idempotent; nothing if it never did."""
    for users in all_of(state_directory):
        try:
            with users.locked():
                if not users.names(sandbox_id):
                    continue
                users.remove(sandbox_id)
                if not users.live() and not users.held:
                    unused(call.find(environ, (), users.engine), users, tell)
        except (CloisterError, OSError, ValueError) as error:
            brief = error.brief if isinstance(error, CloisterError) else str(error)
            tell(f"services of {users.repository} may still run: {brief}; see: cloister services list")


def unused(engine: Engine, users: Users, tell: Callable[[str], None]) -> None:
    """Stop what is not kept, if nobody uses it. The lock is held."""
    if users.live() or users.held:
        return
    found = call.of_repository(engine, users.repository)
    idle = [one for one in found if one.labels.get(render.LABEL_KEEP) != "true"]
    _end(engine, users, idle, tell)


def by_hand(engine: Engine, users: Users, names: tuple[str, ...], tell: Callable[[str], None]) -> int:
    """Stop the services of these names (none: all), kept or not; how many there were."""
    with users.locked():
        found = [
            one
            for one in call.of_repository(engine, users.repository)
            if not names or one.labels.get(render.LABEL_SERVICE) in names
        ]
        if not names:
            users.let_go()
        for sandbox_id in users.live():
            tell(f"the sandbox {sandbox_id} was using these services")
        _end(engine, users, found, tell)
        return len(found)


def remove_volumes(engine: Engine, users: Users, names: tuple[str, ...]) -> list[str]:
    """Remove the data of services that do not run; the volumes that are gone. HostError."""
    gone = []
    for name in names:
        volume = render.volume(users.repository, name)
        if engine.ask("volume", "inspect", volume).code == 0:
            call.must(engine, ("volume", "rm", volume), f'the volume "{volume}" cannot be removed')
            gone.append(volume)
    return gone


def _end(engine: Engine, users: Users, found: list[Container], tell: Callable[[str], None]) -> None:
    for one in found:
        name = one.labels.get(render.LABEL_SERVICE, one.name)
        if one.runs:
            tell(f"stopping service {name}")
            call.must(engine, render.stop(one.name), f'service "{name}" cannot be stopped')
        call.must(engine, render.remove(one.name), f'the container of service "{name}" cannot be removed')
    for unsafe_egress in (False, True):
        # Refused while a container is on it, and if there is none: both are as they should be.
        engine.ask("network", "rm", render.network(users.repository, unsafe_egress=unsafe_egress))
