"""Make the mount points in a sandbox's private home before bubblewrap does.

The home outlives a session, and the sandbox writes it: it may leave a symbolic link where the next session
mounts a tool. bubblewrap makes missing mount points *through* such a link, with the user's rights, while the
host's root is still reachable: empty directories and files anywhere.

Rule 1: no link is followed; what is in the way of a mount point is renamed, not removed.
"""

from __future__ import annotations

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
IN_THE_WAY = ".in-the-way"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def prepare(home_directory: str, relative_targets: Iterable[tuple[str, bool]]) -> None:
    """Make each (path below the home, whether it is a directory) a real one."""
    for path, directory in relative_targets:
        parts = path.split("/")
        descriptor = os.open(home_directory, _DIRECTORY)
        try:
            for part in parts[:-1] if not directory else parts:
                following = _directory(descriptor, part)
                os.close(descriptor)
                descriptor = following
            if not directory:
                _file(descriptor, parts[-1])
        finally:
            os.close(descriptor)


def _directory(parent: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        pass
    except OSError:  # a link, a file …
        os.rename(name, name + IN_THE_WAY, src_dir_fd=parent, dst_dir_fd=parent)
    os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _file(parent: int, name: str) -> None:
    try:
        if stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.rename(name, name + IN_THE_WAY, src_dir_fd=parent, dst_dir_fd=parent)
    except FileNotFoundError:
        pass
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
