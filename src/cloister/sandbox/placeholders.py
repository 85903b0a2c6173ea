"""Mount points in the workspace for protected names that do not exist, while a sandbox lives.

Rule 1: recorded before it is made; removed only if it is ours and still as we made it.
Rule 2: kept while any live sandbox relies on it: removing a mount point on the host detaches the mount in
every namespace (since Linux 3.18), and the name would be writable there.
Rule 3: made and removed through directory descriptors that never follow a symbolic link.
"""

from __future__ import annotations

import fcntl
import os

from cloister.lean import contextmanager, json
from cloister.sandbox.protect import Placeholder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

NAME = "placeholders.json"
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# path → (content or None for a directory, ids of the sandboxes that rely on it)
State = dict[str, tuple[str | None, list[str]]]


def acquire(state_directory: str, sandbox_id: str, placeholders: Iterable[Placeholder]) -> None:
    """Make the mount points, and note that the sandbox relies on them."""
    with _locked(state_directory) as state:
        fresh: list[Placeholder] = []
        for placeholder in placeholders:
            known = state.get(placeholder.path)
            if known is not None:
                if sandbox_id not in known[1]:
                    known[1].append(sandbox_id)
                fresh.append(placeholder)
            elif not os.path.lexists(placeholder.path):  # what the user made stays the user's
                content = None if placeholder.content is None else placeholder.content.decode()
                state[placeholder.path] = (content, [sandbox_id])
                fresh.append(placeholder)
        _store(state_directory, state)
        with _Parents() as parents:
            for placeholder in fresh:
                _make(placeholder, parents)


def release(state_directory: str, sandbox_id: str) -> None:
    """Forget a sandbox, and remove what no other relies on. Idempotent."""
    release_dead(state_directory, lambda holder: holder != sandbox_id)


def release_dead(state_directory: str, alive: Callable[[str], bool]) -> None:
    """Remove what only sandboxes that are not `alive` relied on: what a `kill -9` left. Idempotent."""
    if not os.path.exists(f"{state_directory}/{NAME}"):
        return
    with _locked(state_directory) as state, _Parents() as parents:
        left: State = {}
        # Deepest first, so that a directory is empty when its turn comes.
        for path in sorted(state, reverse=True):
            content, holders = state[path]
            living = [holder for holder in holders if alive(holder)]
            if living:
                left[path] = (content, living)
            else:
                _remove(path, content, parents)
        _store(state_directory, left)


def _make(placeholder: Placeholder, parents: _Parents) -> None:
    directory, name = parents.of(placeholder.path)
    try:
        if placeholder.content is None:
            os.mkdir(name, 0o755, dir_fd=directory)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(name, flags, 0o644, dir_fd=directory), "wb") as file:
            file.write(placeholder.content)
    except FileExistsError:
        return


def _remove(path: str, content: str | None, parents: _Parents) -> None:
    try:
        directory, name = parents.of(path)
        if content is None:
            os.rmdir(name, dir_fd=directory)  # fails unless it is a directory, and empty
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(name, flags, dir_fd=directory), "rb") as file:
            ours = file.read(len(content) + 1) == content.encode()
        if ours:
            os.unlink(name, dir_fd=directory)
    except OSError:
        return  # gone, or no longer as we made it: then it is the user's


class _Parents:
    """Directories that hold placeholders, each opened once, component by component, following no link."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __enter__(self) -> _Parents:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)

    def of(self, path: str) -> tuple[int, str]:
        """A descriptor of the directory that holds `path`, and the name in it."""
        parent, _, name = path.rpartition("/")
        if parent not in self._open:
            self._open[parent] = _open_directory(parent)
        return self._open[parent], name


def _open_directory(path: str) -> int:
    descriptor = os.open("/", DIRECTORY_FLAGS)
    for part in path.split("/")[1:]:
        try:
            following = os.open(part, DIRECTORY_FLAGS, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = following
    return descriptor


@contextmanager
def _locked(state_directory: str) -> Iterator[State]:
    """Hold the lock and read the state. A damaged one counts as empty: at worst an empty directory stays."""
    os.makedirs(state_directory, mode=0o700, exist_ok=True)
    lock = os.open(f"{state_directory}/{NAME}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state: State = {}
        try:
            with open(f"{state_directory}/{NAME}", encoding="utf-8") as file:
                for path, (content, holders) in json.loads(file.read()).items():
                    state[path] = (content, list(holders))
        except (OSError, ValueError, TypeError, AttributeError):
            state = {}
        yield state
    finally:
        os.close(lock)


def _store(state_directory: str, state: State) -> None:
    path = f"{state_directory}/{NAME}"
    if not state:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        return
    temporary = f"{path}.tmp"  # under the lock: one writer
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(state))  # unlike `dump`, in C
    os.replace(temporary, path)
