"""After a session: take away what the sandbox newly made that the host would execute.

Protected names that existed at start were read-only. What came into being since (a cloned repository with
hooks, a nested .vscode) is swept here: moved out of the workspace, to where a person can look at it.

Rule 1: this sandbox is dead, another of the workspace may live: no symbolic link is followed, every directory
is opened component by component.
Rule 2: nothing is deleted; everything that is moved or rewritten is kept, with a manifest.
Rule 3: a new repository stays usable: its configuration is written anew with harmless settings (gitclean.py).
Rule 4: what is empty is harmless, and may be a mount point that a live sandbox relies on: it stays.
Rule 5: in directories that tools make (protect.SKIPPED) only git's own are looked at, but all of them: none was held.
Rule 6: nothing that the sandbox makes ends the sweep: what resists is reported, and the rest is looked at.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from cloister.sandbox import gitclean, protect
from cloister.sandbox.scan import is_repository
from cloister.sandbox.workspace import contains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DIRECTORIES = 1_000_000
MAX_CONFIG_BYTES = 1 << 20
MAX_PATH_BYTES = 4096  # PATH_MAX: no tool opens a longer one
MAX_NAMES = 5  # of dropped settings, in a reason
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One thing that was taken away: its path in the workspace, where it is kept, and why.

    `kept` is empty for what could not be taken away.
    """

    path: str
    kept: str
    reason: str


def sweep(workspace: str, snapshot: frozenset[str], quarantine_directory: str) -> tuple[Moved, ...]:
    """Take away what is not in `snapshot` (`Protection.nested`); write manifest.json if that was anything."""
    sweeper = _Sweep(workspace, snapshot, quarantine_directory)
    sweeper.walk()
    sweeper.pointers()
    if sweeper.moved:
        manifest = json.dumps([asdict(one) for one in sweeper.moved], indent=1)
        with suppress(OSError):  # a full disk; the caller tells each of them as well
            os.makedirs(quarantine_directory, mode=0o700, exist_ok=True)
            with open(f"{quarantine_directory}/manifest.json", "w", encoding="utf-8") as file:
                file.write(manifest)
    return tuple(sweeper.moved)


class _Sweep:
    def __init__(self, workspace: str, snapshot: frozenset[str], quarantine_directory: str) -> None:
        self._workspace = workspace
        self._snapshot = snapshot
        self._quarantine = quarantine_directory
        self._git_directories: set[str] = set()
        self._pointers: list[str] = []
        self._of_tools: set[str] = set()  # pending, and below one of protect.SKIPPED
        self.moved: list[Moved] = []

    def walk(self) -> None:
        """Look at every directory."""
        pending = [self._workspace]
        seen = 0
        while pending:
            directory = pending.pop()
            seen += 1
            if seen > MAX_DIRECTORIES:
                text = f"not looked at: more than {MAX_DIRECTORIES} directories"
                self.moved.append(Moved(path=directory, kept="", reason=text))
                return
            with _opened(directory) as descriptor:
                if descriptor is not None:
                    of_tools = directory in self._of_tools
                    self._of_tools.discard(directory)
                    pending += (self._tool_directory if of_tools else self._directory)(directory, descriptor)

    def pointers(self) -> None:
        """Take away new `.git` files that lead to no repository that was looked at."""
        for path in self._pointers:
            parent, _, name = path.rpartition("/")
            with _opened(parent) as descriptor:
                if descriptor is None:
                    continue
                line = _read(descriptor, name)
                value = line.rstrip(b"\r\n").removeprefix(b"gitdir: ")
                if not self._leads_to_known(parent, value) or _has_other_name(descriptor, name):
                    self._move(descriptor, parent, name, "a .git file that leads to an unknown repository")

    def _leads_to_known(self, base: str, value: bytes) -> bool:
        """Tell whether git, which resolves links before `..`, comes to a repository that was looked at."""
        if not value or b"\0" in value:
            return False
        path = os.path.join(base, os.fsdecode(value))
        target = os.path.normpath(path)
        return target in self._git_directories and os.path.realpath(path) == target

    def _directory(self, path: str, descriptor: int) -> list[str]:
        """Treat one directory; list those below it to look at."""
        try:
            entries = {name: _kind(descriptor, name) for name in os.listdir(descriptor)}
        except OSError:
            return []
        if protect.is_git_directory(set(entries)):
            self._git_directories.add(path)
            if path not in self._snapshot:
                self._new_repository(path, descriptor)
            else:
                self._known_repository(path, descriptor)
            if "/.git/" in f"{path}/":  # else a person may enter it, whatever it looks like
                return [
                    f"{path}/{name}" for name in ("modules", "worktrees") if entries.get(name) == stat.S_IFDIR
                ]
        within_git = "/.git/" in f"{path}/"
        following: list[str] = []
        for name, kind in entries.items():
            child, directory = f"{path}/{name}", kind == stat.S_IFDIR
            if not self._was_there(descriptor, child, kind) and not within_git:
                if name == ".git" and not directory:
                    if kind == stat.S_IFREG:
                        self._pointers.append(child)
                    else:
                        self._move(descriptor, path, name, "a .git that is neither a file nor a directory")
                    continue
                if directory and _is_empty(descriptor, name):
                    continue
                if protect.is_protected(name, parent=os.path.basename(path), directory=directory):
                    self._move(descriptor, path, name, "your tools would act on it")
                    continue
            if directory:
                if name in protect.SKIPPED and not is_repository(child):
                    self._of_tools.add(child)
                following.append(child)
        return following

    def _tool_directory(self, path: str, descriptor: int) -> list[str]:
        """Treat a directory of a tool's, where packages ship protected names by the hundred: git's count alone."""
        try:
            entries = {name: _kind(descriptor, name) for name in os.listdir(descriptor)}
        except OSError:
            return []
        following: list[str] = []
        for name, kind in entries.items():
            child = f"{path}/{name}"
            if name != ".git":
                if kind == stat.S_IFDIR:
                    self._of_tools.add(child)
                    following.append(child)
            elif kind == stat.S_IFDIR:
                following.append(child)
            elif kind == stat.S_IFREG:
                self._pointers.append(child)
            else:
                self._move(descriptor, path, name, "a .git that is neither a file nor a directory")
        return following

    def _was_there(self, descriptor: int, path: str, kind: int) -> bool:
        if kind != stat.S_IFLNK:
            return path in self._snapshot
        try:
            target = os.readlink(path.rpartition("/")[2], dir_fd=descriptor)
        except OSError:
            return False
        return protect.link(path, target) in self._snapshot

    def _known_repository(self, path: str, descriptor: int) -> None:
        """Take what is new in a repository that was there: its other files were held."""
        for name in protect.GIT_FILES:
            harmless = _is_empty(descriptor, name) or _is_regular_and_empty(descriptor, name)
            if not _kind(descriptor, name) or harmless or f"{path}/{name}" in self._snapshot:
                continue
            if name == "commondir" and _read(descriptor, name) == protect.COMMON_DIRECTORY:
                continue
            self._move(descriptor, path, name, "git would obey it")

    def _new_repository(self, path: str, descriptor: int) -> None:
        self._clean_config(path, descriptor)
        if _kind(descriptor, "config.worktree") and not _is_regular_and_empty(descriptor, "config.worktree"):
            self._move(descriptor, path, "config.worktree", "configuration of a new repository")
        if _kind(descriptor, "commondir"):
            common = _read(descriptor, "commondir").rstrip(b"\r\n")
            if not self._leads_to_known(path, common) or _has_other_name(descriptor, "commondir"):
                self._move(descriptor, path, "commondir", "it leads git to another configuration")
        if _kind(descriptor, "hooks") not in {0, stat.S_IFDIR}:
            self._move(descriptor, path, "hooks", "hooks of a new repository")
            return
        with _opened(f"{path}/hooks") as hooks:
            if hooks is None:
                return
            for name in os.listdir(hooks):
                if not name.endswith(".sample"):
                    self._move(hooks, f"{path}/hooks", name, "a hook of a new repository")

    def _clean_config(self, path: str, descriptor: int) -> None:
        kind = _kind(descriptor, "config")
        if not kind:
            return
        content = _read(descriptor, "config") if kind == stat.S_IFREG else b""
        text = content.decode(errors="replace")
        clean, dropped = gitclean.cleaned(text, work_tree=self._work_tree_of(path, text))
        whole = kind == stat.S_IFREG and os.stat(
            "config", dir_fd=descriptor, follow_symlinks=False
        ).st_size == len(content)
        if whole and not dropped and gitclean.is_plain(text) and not _has_other_name(descriptor, "config"):
            return
        names = ", ".join(dropped[:MAX_NAMES]) + (" …" if len(dropped) > MAX_NAMES else "")
        reason = f"configuration of a new repository: {_shown(names) or 'written anew'}"
        if not self._move(descriptor, path, "config", reason):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open("config", flags, 0o644, dir_fd=descriptor), "w", encoding="utf-8") as file:
            file.write(clean)
            owner = os.fstat(descriptor)
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)

    def _work_tree_of(self, path: str, text: str) -> str | None:
        """Find a core.worktree that lies in the workspace: submodules have one."""
        from cloister.sandbox import gitconfig

        for entry in gitconfig.entries(text):
            if (entry.section, entry.key) == ("core", "worktree"):
                if "\0" in entry.value:
                    return None
                written = os.path.join(path, entry.value)
                target = os.path.normpath(written)
                inside = contains(self._workspace, target) and target != self._workspace
                if inside and os.path.realpath(written) == target and "/.git" not in target:
                    return entry.value
        return None

    def _move(self, descriptor: int, directory: str, name: str, reason: str) -> bool:
        """Take one name away; False if it resists."""
        kept = f"{self._quarantine}/{len(self.moved)}-{_file_name(name)}"
        try:
            os.makedirs(self._quarantine, mode=0o700, exist_ok=True)
            _take(descriptor, name, kept)
        except FileNotFoundError:
            return False  # another live sandbox has taken it away
        except (OSError, RecursionError, shutil.Error) as error:
            # On a full disk, or in a directory of another owner: a name that nothing obeys will do.
            beside = f"quarantined-{os.urandom(4).hex()}"
            kept = f"{directory}/{beside}"
            try:
                os.rename(name, beside, src_dir_fd=descriptor, dst_dir_fd=descriptor)
            except OSError:
                kept, reason = "", f"{reason}; it could not be moved: {error}"
        path = os.path.relpath(f"{directory}/{name}", self._workspace)
        self.moved.append(Moved(path=path, kept=kept, reason=reason))
        return bool(kept)


def _take(descriptor: int, name: str, kept: str) -> None:
    try:
        _rename(descriptor, name, kept)
    except PermissionError:  # a directory's own mode, or that of the one it is in
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.fchmod(descriptor, mode | stat.S_IRWXU)
        if _kind(descriptor, name) == stat.S_IFDIR:
            _unlock(descriptor, name)
        _rename(descriptor, name, kept)


def _rename(descriptor: int, name: str, kept: str) -> None:
    try:
        os.rename(name, kept, src_dir_fd=descriptor)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(descriptor, name, kept)


def _file_name(untrusted_name: str) -> str:
    """Render a name that any file system takes and any terminal shows."""
    return "".join(c if c.isascii() and c.isprintable() and c != "/" else "_" for c in untrusted_name)[:80]


def _shown(untrusted_text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in untrusted_text)[:400]


def _copy(descriptor: int, name: str, kept: str) -> None:
    """Move to another file system, link for link."""
    source = f"/proc/self/fd/{descriptor}/{name}"
    kind = _kind(descriptor, name)
    if kind == stat.S_IFDIR:
        shutil.copytree(source, kept, symlinks=True, ignore=_special)
        shutil.rmtree(name, dir_fd=descriptor)
        return
    if kind in {stat.S_IFREG, stat.S_IFLNK}:
        shutil.copy2(source, kept, follow_symlinks=False)
    os.unlink(name, dir_fd=descriptor)


def _special(directory: str, names: list[str]) -> list[str]:
    """Name what cannot be copied: FIFOs and sockets."""
    ordinary = {stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR}
    return [name for name in names if stat.S_IFMT(os.lstat(f"{directory}/{name}").st_mode) not in ordinary]


def _kind(descriptor: int, name: str) -> int:
    """Name the type of a directory's entry (S_IFREG …), or 0 if there is none."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
    except OSError:
        return 0


def _is_empty(descriptor: int, name: str) -> bool:
    try:
        inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
    except OSError:
        return False
    try:
        return not os.listdir(inner)
    finally:
        os.close(inner)


def _is_regular_and_empty(descriptor: int, name: str) -> bool:
    return _kind(descriptor, name) == stat.S_IFREG and not _read(descriptor, name)


def _read(descriptor: int, name: str) -> bytes:
    try:
        with open(os.open(name, _FILE, dir_fd=descriptor), "rb") as file:
            return file.read(MAX_CONFIG_BYTES) or b""
    except OSError:
        return b""


def _has_other_name(descriptor: int, name: str) -> bool:
    """Tell whether a file could be written under a name that the next sandbox does not hold."""
    try:
        return os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_nlink > 1
    except OSError:
        return True


def _open_directory(parent: int, name: str) -> int:
    """Open a directory to list and enter it, although the sandbox took its mode away."""
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except PermissionError:
        _unlock(parent, name)
        return os.open(name, _DIRECTORY, dir_fd=parent)
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and not status.st_mode & stat.S_IXUSR:
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) | stat.S_IXUSR)
    return descriptor


def _unlock(parent: int, name: str) -> None:
    """Give the owner all rights to a directory, following no link."""
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        os.chmod(f"/proc/self/fd/{descriptor}", mode | stat.S_IRWXU)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: str) -> Iterator[int | None]:
    """Open a directory without following any link; None if it is not one (any more), or not readable."""
    descriptor = os.open("/", _DIRECTORY)
    try:
        if len(os.fsencode(path)) > MAX_PATH_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        for part in path.split("/")[1:]:
            following = _open_directory(descriptor, part)
            os.close(descriptor)
            descriptor = following
    except OSError:
        os.close(descriptor)
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
