"""Walk the workspace once before a start, and collect what protect.py says of each name.

Rule 1: symbolic links are never followed by the walk. A protected name that is one is refused at the root, as
nothing can be mounted upon a link; deeper, its target is protected if it lies in the workspace.
Rule 2: the walk is bounded. A workspace beyond the bound is refused: what was not looked at is not protected.
Rule 3: what is a link, or cannot be listed or written now, the sandbox could make otherwise: it owns it.
"""

from __future__ import annotations

import os

from cloister.errors import WorkspaceError
from cloister.sandbox import contents, gitconfig, linked, protect
from cloister.sandbox.protect import Placeholder, Protection
from cloister.sandbox.workspace import contains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DIRECTORIES = 200_000
MAX_PROTECTED = 1_500  # mounts; bubblewrap takes 9000 words of options
INCLUDE_DEPTH = 10  # git's own


def scan(
    workspace: str, *, home: str, protected: Iterable[str] = (), unmask: Iterable[str] = ()
) -> Protection:
    """Scan `workspace`, a real path. `protected` are the plan's `protect`, `unmask` its globs.

    For a work tree that `git worktree add` has made, also the git directory that it shares with others.
    """
    walk = Walk(workspace, tuple(unmask))
    walk.root(home)
    walk.directories()
    for relative in protected:
        walk.declared(relative)
    tree = linked.look(workspace)
    if tree is None:
        return walk.result()
    from cloister.sandbox import shared_git  # only for such a work tree

    return shared_git.protection(walk, tree, home)


class Walk:
    """Collects findings. Paths are absolute; `_inside` tells what is below a read-only directory already."""

    def __init__(self, workspace: str, unmask: tuple[str, ...]) -> None:
        self._workspace = workspace
        self._unmask = unmask
        self._read_only: set[str] = set()
        self._redacted: dict[str, bytes] = {}
        self._masked_files: set[str] = set()
        self._masked_directories: set[str] = set()
        self._placeholders: dict[str, Placeholder] = {}
        self._nested: set[str] = set()
        self._notes: list[str] = []
        self._unwalked: list[str] = []
        self._seen = 0
        self._home = ""

    def root(self, home: str) -> None:
        """Look at the names that are protected even where they do not exist."""
        self._home = home
        for name in protect.PLACEHOLDERS:
            path = f"{self._workspace}/{name}"
            self._refuse_link(path)
            if contents.is_absent_or_empty(path):
                self._placeholders[path] = Placeholder(path)
        for hooks in contents.global_hooks(home):
            self._hooks_path(hooks, self._workspace)

    def git_directory(self, directory: str, home: str, *, work_tree: str, read_only: Iterable[str]) -> None:
        """Look at one git directory and at no other; `read_only` names what else is held in it, where it exists."""
        self._home = home
        self._git_directory(directory, work_tree=work_tree, parts=())
        for name in read_only:
            path = f"{directory}/{name}"
            self._refuse_link(path)
            if os.path.lexists(path):
                self._read_only.add(path)

    def hold(self, path: str, content: bytes | None) -> None:
        """Hold a name that is absent or empty: another sandbox may hold it already."""
        if contents.is_absent_or_empty(path) or (os.path.isfile(path) and os.path.getsize(path) == 0):
            self._read_only.discard(path)
            self._placeholders[path] = Placeholder(path, content)

    def obeyed(self, path: str, work_tree: str) -> None:
        """Protect what a configuration outside of the workspace names in it."""
        for entry in gitconfig.entries(contents.read(path).decode(errors="surrogateescape")):
            if entry.section in {"include", "includeif"} and entry.key == "path":
                included = self._expanded(entry.value, os.path.dirname(path))
                self._git_config(included, work_tree, work_tree, 1)
            elif (entry.section, entry.key) == ("core", "hookspath"):
                self._hooks_path(entry.value, work_tree)

    def directories(self) -> None:
        """Walk every directory but those that protect.SKIPPED names."""
        pending = [self._workspace]
        while pending:
            directory = pending.pop()
            self._count(directory)
            try:
                with os.scandir(directory) as entries:
                    listed = list(entries)
            except OSError:
                self._unlisted(directory)
                continue
            names = {entry.name for entry in listed}
            named_git = directory.endswith("/.git")
            if protect.is_git_directory(names):
                self._git_directory(directory)
                if named_git:
                    continue
            elif named_git:
                self._read_only.add(directory)  # not yet a repository
                continue
            for entry in listed:
                if self._entry(entry):
                    pending.append(entry.path)

    def declared(self, relative: str) -> None:
        """Protect what the configuration names."""
        path = os.path.normpath(os.path.join(self._workspace, relative))
        if not contains(self._workspace, path) or path == self._workspace:
            raise WorkspaceError(
                f"{relative!r} in `protect` lies outside the workspace.",
                resolution="name a path relative to the workspace, such as 'scripts/deploy.sh'",
            )
        if os.path.realpath(path) != path:
            raise WorkspaceError(
                f"{relative!r} in `protect` leads through a symbolic link, which the sandbox could replace.",
                resolution=f"name {os.path.realpath(path)!r} instead",
            )
        if os.path.exists(path):
            self._read_only.add(path)
        else:
            parent = os.path.dirname(path)
            if os.path.isdir(parent):
                self._placeholders[path] = Placeholder(path)
            else:
                self._notes.append(f"{relative!r} in `protect` does not exist and is not protected")

    def result(self) -> Protection:
        """Put the findings together."""
        masked = self._masked_files | self._masked_directories
        read_only = self._read_only - masked - set(self._redacted)
        read_only = {path for path in read_only if not self._below(path, self._read_only)}
        placeholders = tuple(
            placeholder
            for path, placeholder in sorted(self._placeholders.items())
            if not self._below(path, set(self._placeholders)) and not self._below(path, read_only)
        )
        if len(read_only) + len(masked) + len(self._redacted) + len(placeholders) > MAX_PROTECTED:
            raise _too_large(
                f"it has more than {MAX_PROTECTED} files that are secret, or that your tools execute"
            )
        ends = read_only | set(self._redacted) | {placeholder.path for placeholder in placeholders}
        parents: set[str] = set()
        for path in ends:
            parent = os.path.dirname(path)
            while parent != self._workspace and parent not in parents:
                parents.add(parent)
                parent = os.path.dirname(parent)
        return Protection(
            workspace=self._workspace,
            parents=tuple(sorted(parents)),
            read_only=tuple(sorted(read_only)),
            redacted=tuple(sorted(self._redacted.items())),
            masked_files=tuple(sorted(self._masked_files)),
            masked_directories=tuple(sorted(self._masked_directories)),
            placeholders=placeholders,
            nested=frozenset(self._nested),
            notes=tuple(self._notes),
            unwalked=tuple(self._unwalked),
        )

    def _entry(self, entry: os.DirEntry[str]) -> bool:
        """Judge one name; tell whether to walk into it."""
        name, path = entry.name, entry.path
        if entry.is_symlink():
            self._link(name, path)
            return False
        directory = entry.is_dir(follow_symlinks=False)
        if path in self._placeholders:
            return False
        if name == ".git":
            if directory:
                return True  # judged when its own names are known
            self._nested.add(path)
            self._read_only.add(path)
            return False
        if directory:
            if name in protect.SECRET_DIRECTORIES and not self._is_unmasked(path):
                self._masked_directories.add(path)
                return False
            if protect.is_protected(name, parent=_parent(path), directory=True):
                self._nested.add(path)
                self._read_only.add(path)
            if name not in protect.SKIPPED or is_repository(path):
                return True
            self._unwalked.append(path)
            return False
        if protect.is_protected(name, parent=_parent(path), directory=False):
            self._nested.add(path)
            self._read_only.add(path)
        hidden = self._is_secret(name, path) or (
            not entry.is_file(follow_symlinks=False) and contents.is_answered_socket(path)
        )
        if hidden and not self._is_unmasked(path):
            self._masked_files.add(path)
        return False

    def _link(self, name: str, path: str) -> None:
        protected = name == ".git" or protect.is_protected(name, parent=_parent(path), directory=False)
        secret = protect.is_secret_name(name)
        if protected:
            self._nested.add(protect.link(path, os.readlink(path)))
        if not protected and not secret:
            return
        target = os.path.realpath(path)
        if target == self._workspace or not contains(self._workspace, target) or not os.path.exists(target):
            return  # outside, the sandbox does not see it
        if secret and os.path.isfile(target) and not self._is_unmasked(path):
            self._masked_files.add(target)
        elif protected:
            self._read_only.add(target)

    def _is_secret(self, name: str, path: str) -> bool:
        if protect.is_secret_name(name):
            return True
        return protect.may_be_secret(name) and protect.is_secret_content(name, contents.start(path))

    def _is_unmasked(self, path: str) -> bool:
        return bool(self._unmask) and protect.matches(path[len(self._workspace) + 1 :], self._unmask)

    def _git_directory(
        self, directory: str, *, work_tree: str = "", parts: Iterable[str] = ("modules", "worktrees")
    ) -> None:
        """Protect what makes git execute something; see docs/adr/0030-protected-paths.md for each."""
        self._nested.add(directory)
        for name in protect.GIT_FILES:
            path = f"{directory}/{name}"
            self._refuse_link(path)
            if not contents.is_absent_or_empty(path) and contents.start(path) != protect.COMMON_DIRECTORY:
                self._nested.add(path)
        if not os.access(directory, os.W_OK):
            self._read_only.add(directory)  # we cannot hold a name there, and its owner can change its mode
        for name in ("config.worktree", "info/attributes", "commondir", "gitdir"):
            if os.path.isfile(f"{directory}/{name}"):
                self._read_only.add(f"{directory}/{name}")
        hooks, common, config = (f"{directory}/{name}" for name in ("hooks", "commondir", "config"))
        if contents.is_absent_or_empty(hooks):  # empty: another sandbox may hold it already
            self._placeholders[hooks] = Placeholder(hooks)
        elif os.path.isdir(hooks):
            self._read_only.add(hooks)
        if not os.path.lexists(common) or contents.start(common) == protect.COMMON_DIRECTORY:
            self._read_only.discard(common)
            self._placeholders[common] = Placeholder(common, protect.COMMON_DIRECTORY)
        self._git_config(config, work_tree or os.path.dirname(directory), directory, 0)
        for name in parts:
            self._git_parts(f"{directory}/{name}")

    def _git_parts(self, directory: str) -> None:
        """Walk `modules` and `worktrees`; a module's name may hold slashes."""
        pending = [] if os.path.islink(directory) else [directory]
        while pending:
            place = pending.pop()
            self._count(place)
            try:
                with os.scandir(place) as entries:
                    names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                continue
            except OSError:
                self._unlisted(place)
                continue
            for name in names:
                part = f"{place}/{name}"
                if os.path.lexists(f"{part}/HEAD"):
                    self._git_directory(part)
                else:
                    pending.append(part)

    def _git_config(self, path: str, work_tree: str, git_directory: str, depth: int) -> None:
        """Protect a configuration file, what it includes, and where it says that hooks are."""
        if depth > INCLUDE_DEPTH or not contains(self._workspace, path):
            return
        self._refuse_way(path)
        absent = not os.path.lexists(path)
        if absent or (
            os.path.isfile(path) and os.path.getsize(path) == 0
        ):  # another sandbox may hold it already
            # The git directory of a linked work tree has none: it takes that of its common directory.
            if not absent or depth or f"{git_directory}/commondir" not in self._read_only:
                self._hold(path, b"")
            return
        content = contents.read(path)
        text = content.decode(errors="surrogateescape")
        clean = gitconfig.redacted(text)
        self._read_only.add(path)
        if clean != text:
            self._redacted[path] = clean.encode(errors="surrogateescape")
        for entry in gitconfig.entries(text):
            if entry.section in {"include", "includeif"} and entry.key == "path":
                self._git_config(
                    self._expanded(entry.value, os.path.dirname(path)), work_tree, git_directory, depth + 1
                )
            elif (entry.section, entry.key) == ("core", "hookspath"):
                self._hooks_path(entry.value, work_tree)
            elif (entry.section, entry.key) == ("extensions", "worktreeconfig"):
                worktree = f"{git_directory}/config.worktree"
                self.hold(worktree, b"")

    def _hooks_path(self, value: str, work_tree: str) -> None:
        """Protect a hooks directory in the workspace: `.husky/_` means all of .husky, which it runs."""
        path = self._expanded(value, work_tree)
        if not contains(self._workspace, path) or path == self._workspace:
            return
        self._refuse_way(path)
        if contents.is_absent_or_empty(path):
            self._hold(path, None)
        else:
            self._read_only.add(path)

    def _expanded(self, value: str, base: str) -> str:
        """Name what a path in git's configuration means."""
        if value.startswith("~/"):
            value = self._home + value[1:]
        return os.path.normpath(os.path.join(base, value))

    def _hold(self, path: str, content: bytes | None) -> None:
        """Hold a name that is absent: where its directory is absent too, the first name that is."""
        parent = os.path.dirname(path)
        while not os.path.lexists(parent):
            path, parent, content = parent, os.path.dirname(parent), None
        self._placeholders[path] = Placeholder(path, content)

    def _count(self, directory: str) -> None:
        self._seen += 1
        if self._seen > MAX_DIRECTORIES:
            raise _too_large(
                f"it has more than {MAX_DIRECTORIES} directories (the last one was {directory!r})"
            )

    def _unlisted(self, directory: str) -> None:
        """Hide a directory that its owner, also the sandbox, could make readable."""
        try:
            if os.lstat(directory).st_uid != os.geteuid():
                return  # neither of us can read it
        except OSError:
            return
        self._nested.add(directory)
        self._masked_directories.add(directory)

    def _refuse_link(self, path: str) -> None:
        if os.path.islink(path):
            raise WorkspaceError(
                f"{path!r} is a symbolic link, which the sandbox could replace.",
                details=f"It leads to {os.readlink(path)!r}. Your tools act on what it holds.",
                resolution=f"replace the link by what it leads to, or remove it: rm {path!r}",
            )

    def _refuse_way(self, path: str) -> None:
        """Refuse a link on the way from the workspace to `path`."""
        while path != self._workspace:
            self._refuse_link(path)
            path = os.path.dirname(path)

    def _below(self, path: str, directories: set[str]) -> bool:
        parent = os.path.dirname(path)
        while len(parent) > len(self._workspace):
            if parent in directories:
                return True
            parent = os.path.dirname(parent)
        return False


def _parent(path: str) -> str:
    return os.path.basename(os.path.dirname(path))


def is_repository(directory: str) -> bool:
    """Tell whether one of protect.SKIPPED is a repository itself, and so is looked at."""
    return os.path.lexists(f"{directory}/.git") or os.path.lexists(f"{directory}/HEAD")


def _too_large(why: str) -> WorkspaceError:
    return WorkspaceError(
        f"The workspace is too large to be looked at whole: {why}.",
        details="What is not looked at cannot be protected.",
        resolution="name a part of it with -C DIRECTORY, or remove what is not needed",
    )
