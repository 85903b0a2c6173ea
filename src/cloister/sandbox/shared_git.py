"""Protect the git directory that a linked work tree shares with the repository's other work trees.

`git worktree add` leaves in the work tree only a pointer. Without the directory that it leads to, `<common>`, git does
not work there; with it, the sandbox could plant hooks and settings for every work tree. So `<common>` is mounted at its
own path, writable, for git locks and replaces files in it (`packed-refs`), and in it are read-only:

- what decides what git executes: config, hooks, config.worktree, commondir (scan.py, as in any repository);
- what belongs to the main work tree: HEAD, index, info, what a half-done rebase would execute;
- what belongs to other work trees, and their places: `worktrees`, all but this one's directory in it;
- `modules`: git directories of submodules, for which the host would take what the sandbox made.

Rule 1: mounts lie only upon direct children of `<common>` and of this work tree's own directory. Another sandbox of
the repository holds the same names, so it can exchange none of them while this one is being made.
Rule 2: objects, refs and logs are shared: an agent can move any branch. They are data; nothing executes them.
"""

from __future__ import annotations

from cloister.sandbox.protect import Protection
from cloister.sandbox.scan import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.sandbox.linked import LinkedTree

OF_THE_MAIN_TREE = (
    "HEAD",
    "index",
    "info",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
    "modules",
    "worktrees",
)


def protection(walk: Walk, tree: LinkedTree, home: str) -> Protection:
    """What `walk` has found in the work tree, together with what is held in its git directories."""
    for settings in (f"{tree.common}/config", f"{tree.git_directory}/config.worktree"):
        walk.obeyed(settings, tree.work_tree)
    shared, own = Walk(tree.common, ()), Walk(tree.git_directory, ())
    shared.git_directory(tree.common, home, work_tree=tree.work_tree, read_only=OF_THE_MAIN_TREE)
    own.git_directory(tree.git_directory, home, work_tree=tree.work_tree, read_only=("modules",))
    for held, directory in ((shared, tree.common), (own, tree.git_directory)):
        held.hold(f"{directory}/config.worktree", b"")
        held.hold(f"{directory}/modules", None)
    return _together(tree, walk.result(), shared.result(), own.result())


def _together(tree: LinkedTree, *found: Protection) -> Protection:
    return Protection(
        workspace=tree.work_tree,
        beside=(tree.common,),
        parents=(*(path for one in found for path in one.parents), tree.git_directory),
        read_only=tuple(path for one in found for path in one.read_only),
        redacted=tuple(pair for one in found for pair in one.redacted),
        masked_files=tuple(path for one in found for path in one.masked_files),
        masked_directories=tuple(path for one in found for path in one.masked_directories),
        placeholders=tuple(placeholder for one in found for placeholder in one.placeholders),
        nested=frozenset[str]().union(*(one.nested for one in found)),
        notes=tuple(note for one in found for note in one.notes),
    )
