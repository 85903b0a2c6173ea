"""Make the directory that a sandbox sees as its workspace: the project itself, or a private copy or clone of it.

`materialise(project, kind, name)` is what a start calls; the rest of a start needs only the directory that it returns,
which is mounted at the project's own path.

- `bind`: the project itself. Protected and masked by scan.py.
- `volume`: a private copy of what is tracked, or neither tracked nor ignored, with the history if there is one.
- `clone`: a private clone of the last commit, on a branch of its own; it comes back as that branch.

Rule 1: of the last two, nothing of the host's project is mounted, and nothing in them is executed on the host; so
nothing in them is read-only either. What comes back is reviewed (review.py).
Rule 2: no secret goes in (seed.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace

from cloister.config.directories import Project
from cloister.errors import RepositoryError, WorkspaceError
from cloister.sandbox import scan
from cloister.sandbox.protect import Protection
from cloister.workspaces import clone, names, pending, repository, seed, store, tree
from cloister.workspaces.repository import Repository
from cloister.workspaces.store import Stored

Tell = Callable[[str], None]


def materialise(
    project: Project,
    kind: str,
    name: str,
    *,
    home: str,
    unmask: Iterable[str] = (),
    tell: Tell = lambda _: None,
) -> str:
    """The directory to mount, writable, at `project.workspace`. Made at the first call, kept until `store.remove`.

    `home`: the user's. `tell` gets what the user should know of what was left out. WorkspaceError or RepositoryError
    where it cannot be made; nothing is left then.
    """
    if kind == "bind":
        return project.workspace
    if kind not in ("volume", "clone"):
        raise WorkspaceError(
            f"there is no workspace of kind {kind!r}", resolution=f"choose one of: {', '.join(store.KINDS)}"
        )
    with store.locked(project, name):
        known = store.load(project, name)
        if known is not None:
            return _same_kind(known, kind).files
        with store.making(project, name, "clone" if kind == "clone" else "volume") as stored:
            made = _fill(project.workspace, stored, home=home, unmask=tuple(unmask), tell=tell)
            for failure in tree.copy(made.files, made.base, tree.entries(made.files).values()):
                raise WorkspaceError(f"the workspace could not be kept as it began: {failure}")
            store.keep(made)
    return made.files


def protection(project: Project) -> Protection:
    """What to give `view.build` for a workspace that is not the project: nothing in it is protected (Rule 1)."""
    return Protection(workspace=project.workspace)


def _same_kind(known: Stored, kind: str) -> Stored:
    if known.kind != kind:
        raise WorkspaceError(
            f"the sandbox {known.name!r} has a workspace of kind {known.kind!r} already, not {kind!r}",
            details="What the sandbox has changed is in it.",
            resolution=f"see it: cloister diff {known.name}   then give another --name, or: "
            f"cloister rm --volumes {known.name}",
        )
    return known


def _fill(workspace: str, stored: Stored, *, home: str, unmask: tuple[str, ...], tell: Tell) -> Stored:
    if stored.kind == "clone":
        source = repository.find(workspace)
        made = _cloned(source, stored, f"refs/heads/{names.branch(stored.name)}", home)
        _tell_of_what_stays(source, home, tell)
    else:
        found = scan.scan(workspace, home=home, unmask=unmask)
        source_or_none = seed.repository_of(workspace)
        selection = seed.select(workspace, found, home, source_or_none)
        made = _with_history(source_or_none, stored, home, tell)
        failures = _overlay(workspace, made.files, selection)
        for note in seed.notes(selection, failures):
            tell(note)
    _take_out_secrets(made, home, unmask, tell)
    return made


def _with_history(source: Repository | None, stored: Stored, home: str, tell: Tell) -> Stored:
    """A clone on the branch that is checked out, to lay the files upon; an empty place where there is no history."""
    if source is None:
        return stored
    try:
        branch = repository.head(source) or f"refs/heads/{names.branch(stored.name)}"
        return _cloned(source, stored, branch, home)
    except RepositoryError as error:
        tell(f"the copy has no history: {error.brief}")
        for name in os.listdir(stored.files):
            _remove_made(os.path.join(stored.files, name))
        return stored


def _cloned(source: Repository, stored: Stored, branch: str, home: str) -> Stored:
    return replace(stored, branch=branch, commit=clone.make(source, stored.files, branch=branch, home=home))


def _overlay(workspace: str, directory: str, selection: seed.Selection) -> list[str]:
    """Bring a fresh checkout to what the user's files are."""
    there = tree.entries(directory)
    for path in selection.removed:
        if path in there and there[path].kind != "directory":
            os.unlink(os.path.join(directory, path))
    wanted = []
    for entry in selection.entries:
        known = there.get(entry.path)
        if known == entry and (entry.kind == "link" or tree.same_content(workspace, directory, entry.path)):
            continue
        if known is not None:
            _remove_made(os.path.join(directory, entry.path))
        wanted.append(entry)
    return tree.copy(workspace, directory, wanted)


def _take_out_secrets(made: Stored, home: str, unmask: tuple[str, ...], tell: Tell) -> None:
    found = scan.scan(made.files, home=home, unmask=unmask)
    masked = [os.path.relpath(path, made.files) for path in (*found.masked_files, *found.masked_directories)]
    if not masked:
        return
    listed = tree.entries(made.files)
    secret = [
        path
        for path, entry in listed.items()
        if entry.kind != "directory" and any(_is_at(path, one) for one in masked)
    ]
    if made.commit:
        clone.leave_out(made.files, secret, home=home)
        tell(f"files that look like secrets are left out, but the history has them: {', '.join(secret[:5])}")
    else:
        for path in secret:
            os.unlink(os.path.join(made.files, path))


def _is_at(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _tell_of_what_stays(source: Repository, home: str, tell: Tell) -> None:
    found = pending.look(source, home=home)
    if found.changed or found.untracked:
        tell("the clone begins at the last commit: changes that are not committed are not in it")
    if found.nested:
        tell(f"submodules and nested repositories are not in the clone: {', '.join(found.nested[:5])}")


def _remove_made(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
