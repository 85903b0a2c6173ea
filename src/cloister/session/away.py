"""Files of a sandbox that an engine on another machine has: brought there, looked at, fetched back, removed.

    <state>/workspaces/<name>/away.json   where the files of that workspace are; the mirror is what store.py keeps here
    <state>/homes/<endpoint>.json         where the home for sandboxes of that engine is; it has no mirror

Rule 1: what is there is what counts; the mirror is refreshed before it is compared, applied or moved.
Rule 2: nothing is removed there before it is whole here, but what the user removes.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloister.config.directories import Project, digest
from cloister.errors import UntrustedInputError, WorkspaceError
from cloister.runtimes import engine as engines
from cloister.runtimes import oci_image, oci_runtime, oci_volumes
from cloister.runtimes.engine import Engine
from cloister.workspaces import away, engine_files, store, transfer
from cloister.workspaces.away import Away
from cloister.workspaces.store import Stored

Tell = Callable[[str], None]
_WORKSPACE, _HOME = "workspace", "home"
_ATTEMPTS = 5


def begin(
    project: Project, stored: Stored, engine: Engine, owner: tuple[int, int], tell: Tell
) -> tuple[str, str]:
    """The volumes of the home and of the workspace on an engine, filled if they are new. HostError."""
    with store.locked(project, stored.name):
        home = _ensure(_home_record(project, engine.endpoint), project, engine, owner, kind=_HOME, tell=tell)
        record = _record(project, stored.name)
        work = _ensure(record, project, engine, owner, kind=_WORKSPACE, tell=tell, source=stored.files)
    return home, work


def settle(project: Project, directory: str, engine: Engine | None, tell: Tell) -> None:
    """Before a start: fetch what another engine than the one to be used has of the workspace stored in `directory`."""
    name = os.path.basename(directory)
    path = _record(project, name)
    known = away.load(path)
    if known is None or (engine is not None and engine.remote and engine.endpoint == known.endpoint):
        return
    tell(f"the workspace of {name!r} is fetched from {known.endpoint}")
    refresh(project, name, tell)
    _remove(path)


def refresh(project: Project, name: str, tell: Tell) -> None:
    """Bring the mirror of a workspace up to date, if its files are away."""
    known = away.load(_record(project, name))
    stored = store.load(project, name)
    if known is None or stored is None or not known.whole:
        return
    with store.locked(project, name), _opened(project, known, {_WORKSPACE: known.volume}) as filler:
        for line in _refreshed(stored, filler):
            tell(line)


def _refreshed(stored: Stored, access: transfer.Access) -> list[str]:
    """A stream breaks off where a file becomes shorter while the engine reads it: then once more."""
    for attempt in range(_ATTEMPTS):
        try:
            return engine_files.refresh(stored, access, oci_volumes.place(_WORKSPACE))
        except UntrustedInputError as error:
            if attempt + 1 == _ATTEMPTS:
                raise WorkspaceError(
                    f"the files of {stored.name!r} could not be fetched whole: {error}",
                    details="It may have been writing them at that moment.",
                    resolution="try again, or stop it first: cloister stop",
                ) from error
    raise AssertionError


@contextmanager
def reached(project: Project, name: str) -> Iterator[Reached | None]:
    """The home and the workspace of a sandbox where they are; None if they are here."""
    known = away.load(_record(project, name))
    if known is None:
        yield None
        return
    volumes = {_WORKSPACE: known.volume}
    home = away.load(_home_record(project, known.endpoint))
    if home is not None:
        volumes[_HOME] = home.volume
    with _opened(project, known, volumes) as filler:
        yield Reached(filler, known.owner)


class Reached:
    """Copies between the host and files that are away."""

    def __init__(self, access: transfer.Access, owner: tuple[int, int]) -> None:
        self._access, self._owner = access, owner

    def out(self, mounted: transfer.Mounted, path: str, destination: str, *, guarded: str) -> list[str]:
        """As `transfer.out`."""
        place, shown = self._locate(mounted, path)
        return engine_files.copy_out(self._access, place, destination, shown=shown, guarded=guarded)

    def into(self, mounted: transfer.Mounted, source: str, path: str) -> list[str]:
        """As `transfer.into`."""
        place, shown = self._locate(mounted, path)
        slash = "/" if path.endswith("/") else ""
        return engine_files.copy_in(self._access, source, place + slash, shown=shown, owner=self._owner)

    @staticmethod
    def _locate(mounted: transfer.Mounted, path: str) -> tuple[str, str]:
        root, below = mounted.locate(path)
        kind = _WORKSPACE if root == mounted.workspace else _HOME
        return os.path.join(oci_volumes.place(kind), below).rstrip("/"), os.path.join(root, below).rstrip("/")


def places(project: Project, home: str) -> transfer.Mounted:
    """The paths in the sandbox that `Reached` knows."""
    seen = sorted({project.workspace, home}, key=lambda place: -len(place))
    return transfer.Mounted(places=tuple((one, one) for one in seen), workspace=project.workspace)


def remove_workspace(project: Project, name: str) -> None:
    """Remove what an engine has of a workspace. HostError if the engine does not do it."""
    _remove(_record(project, name))


def remove_homes(project: Project) -> None:
    """Remove what engines have of a project's home. HostError."""
    directory = os.path.dirname(_home_record(project, ""))
    if os.path.isdir(directory):
        for name in sorted(os.listdir(directory)):
            _remove(os.path.join(directory, name))
        os.rmdir(directory)


def _ensure(
    path: str,
    project: Project,
    engine: Engine,
    owner: tuple[int, int],
    *,
    kind: str,
    tell: Tell,
    source: str = "",
) -> str:
    """The volume that is written down at `path`; a new one if there is none, or it is not there any more."""
    known = away.load(path)
    if known is not None and known.whole:
        if oci_volumes.mountpoint(engine, known.volume) is not None:
            return known.volume
        tell(
            f"{engine.endpoint} has lost the volume {known.volume!r}: "
            f"the {kind} begins anew{' with what was fetched last' if source else ''}"
        )
    _remove(path)
    made = Away(
        engine=engine.name,
        program=engine.program,
        environment=tuple(engine.environment.items()),
        endpoint=engine.endpoint,
        volume=f"cloister-{project.id}-{os.urandom(4).hex()}-{kind}",
        owner=owner,
    )
    away.store(path, made)
    oci_volumes.make(engine, made.volume, project=project.id)
    if source:
        tell(f"the workspace is brought to {engine.endpoint}")
        with _opened(project, made, {kind: made.volume}, tell) as filler:
            engine_files.send(source, filler, oci_volumes.place(kind), owner=owner)
    away.store(path, dataclasses.replace(made, whole=True))
    return made.volume


@contextmanager
def _opened(
    project: Project, known: Away, volumes: dict[str, str], tell: Tell = lambda _: None
) -> Iterator[oci_volumes.Filler]:
    engine = _engine(known)
    runtime = oci_runtime.runtime(project.shared, oci_runtime.GATEWAY)
    oci_image.ensure_runtime(engine, runtime)
    with oci_volumes.Filler(
        engine, _filler(known), project=project.id, image=runtime.tag, volumes=volumes, tell=tell
    ) as filler:
        yield filler


def _remove(path: str) -> None:
    """Remove the volume that is written down at `path`, and what a killed command passed files with. HostError."""
    known = away.load(path)
    if known is not None:
        engine = _engine(known)
        oci_volumes.remove_container(engine, _filler(known))
        oci_volumes.remove(engine, known.volume)
    away.forget(path)


def _filler(known: Away) -> str:
    """Its container's name, by which a killed command's is found."""
    return f"{known.volume}-filler"


def _engine(known: Away) -> Engine:
    return engines.again(known.engine, known.program, known.environment)


def _record(project: Project, name: str) -> str:
    return os.path.join(store.directory(project, name), "away.json")


def _home_record(project: Project, endpoint: str) -> str:
    return os.path.join(project.state, "homes", f"{digest(endpoint.encode())[:16]}.json")
