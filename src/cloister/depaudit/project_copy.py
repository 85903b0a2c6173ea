"""Copy a project for dependency code to work on: what git tracks or would track, without secrets.

Rule 1: an agent may have written the project: no symbolic link is followed, nothing but regular files is opened, and
        git is run with everything off that a repository can make it run.
Rule 2: bounded.
Rule 3: a file that sandbox/protect.py takes for a secret stays out, and so do the tokens in .npmrc and .yarnrc.yml.
Rule 4: the copy's .git is a new, empty repository: its hooks and settings are there to be attacked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from cloister.errors import WorkspaceError
from cloister.sandbox import protect
from cloister.system import proc

FILES_LIMIT = 200_000
BYTES_LIMIT = 4 << 30
LIST_LIMIT_BYTES = 64 << 20
GIT_TIMEOUT_S = 60.0
_START_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TOKEN_LINES = {
    ".npmrc": (b"_authtoken", b"_auth", b"_password", b"username", b"certfile", b"keyfile"),
    ".yarnrc.yml": (b"npmauthtoken", b"npmauthident"),
}
_GIT = (
    "git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*",
    "-c", "protocol.allow=never", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
)  # fmt: skip
_REPOSITORY = {
    "HEAD": "ref: refs/heads/main\n",
    "config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n",
    "hooks/pre-commit.sample": "#!/bin/sh\n# An example of a hook.\nexit 0\n",
}


def copy(source: str, target: str) -> tuple[str, ...]:
    """Copy the project `source` to the new directory `target`. Returns the paths of the secrets that stayed out.

    WorkspaceError if it is too large.
    """
    os.mkdir(target, 0o755)
    copying = _Copying(source, _listed(source))
    descriptor = os.open(source, _DIRECTORY)
    try:
        copying.directory(descriptor, target, "")
    finally:
        os.close(descriptor)
    _repository(f"{target}/.git")
    return tuple(copying.left_out)


def _listed(source: str) -> frozenset[str] | None:
    """The paths that git tracks, or would track; None where there is no repository, or no git."""
    if not os.path.lexists(f"{source}/.git/HEAD") and not os.path.isfile(f"{source}/.git"):
        return None
    environment = {
        **proc.clean_environment(), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_OPTIONAL_LOCKS": "0", "GIT_DIR": f"{source}/.git", "GIT_WORK_TREE": source,
    }  # fmt: skip
    try:
        done = proc.capture(
            [_GIT[0], "-C", source, *_GIT[1:]],
            environment=environment,
            timeout_s=GIT_TIMEOUT_S,
            limit_bytes=LIST_LIMIT_BYTES,
        )
    except FileNotFoundError:
        return None
    except proc.OutputLimitError:
        raise _too_large(f"git lists more than {LIST_LIMIT_BYTES >> 20} MiB of names") from None
    if done.code != 0:
        return None
    return frozenset(os.fsdecode(name) for name in done.output.split(b"\0") if name)


class _Copying:
    def __init__(self, source: str, listed: frozenset[str] | None) -> None:
        self._source = source
        self._listed = listed
        self._directories = frozenset(_parents(listed or ()))
        self._files = 0
        self._bytes = 0
        self.left_out: list[str] = []

    def directory(self, source: int, target: str, relative: str) -> None:
        """Copy what an open directory holds. `relative` ends in a slash, or is empty."""
        with os.scandir(source) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        for entry in listed:
            path, place = relative + entry.name, f"{target}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if self._is_wanted_directory(entry.name, path):
                    self._descend(source, entry.name, place, path)
            elif self._listed is None or path in self._listed:
                self._count(path)
                if entry.is_symlink():
                    os.symlink(os.readlink(entry.name, dir_fd=source), place)
                else:
                    self._file(source, entry.name, place, path)

    def _is_wanted_directory(self, name: str, path: str) -> bool:
        if name == ".git":
            return False
        return name not in protect.SKIPPED if self._listed is None else path in self._directories

    def _descend(self, parent: int, name: str, place: str, path: str) -> None:
        if name in protect.SECRET_DIRECTORIES:
            self.left_out.append(path)
            return
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError:
            return  # exchanged meanwhile, or not for us
        try:
            os.mkdir(place, 0o755)
            self.directory(descriptor, place, f"{path}/")
        finally:
            os.close(descriptor)

    def _file(self, parent: int, name: str, place: str, path: str) -> None:
        try:
            descriptor = os.open(name, _FILE, dir_fd=parent)
        except OSError:
            return
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return
            if protect.is_secret_name(name):
                self.left_out.append(path)
                return
            start = b""
            if protect.may_be_secret(name):
                start = file.read(_START_BYTES) or b""
                if name in _TOKEN_LINES:
                    start = _without_tokens(name, start)
                elif protect.is_secret_content(name, start):
                    self.left_out.append(path)
                    return
            mode = stat.S_IMODE(status.st_mode) & 0o755 | 0o600
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(place, flags, mode), "wb", buffering=0) as copied:
                copied.write(start)
                while chunk := file.read(_CHUNK_BYTES):
                    self._bytes += len(chunk)
                    if self._bytes > BYTES_LIMIT:
                        raise _too_large(f"more than {BYTES_LIMIT >> 30} GiB, at {path!r}")
                    copied.write(chunk)

    def _count(self, path: str) -> None:
        self._files += 1
        if self._files > FILES_LIMIT:
            raise _too_large(f"more than {FILES_LIMIT} files, at {path!r}")


def _without_tokens(name: str, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(line for line in lines if not any(word in line.lower() for word in _TOKEN_LINES[name]))


def _parents(paths: frozenset[str] | tuple[str, ...]) -> Iterator[str]:
    for path in paths:
        while path := path.rpartition("/")[0]:
            yield path


def _repository(directory: str) -> None:
    """What `git init` would make, without running it."""
    for name in ("hooks", "objects", "refs/heads", "info"):
        os.makedirs(f"{directory}/{name}")
    for name, text in _REPOSITORY.items():
        with open(f"{directory}/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _too_large(details: str) -> WorkspaceError:
    return WorkspaceError(
        "the project is too large to be copied for an audit",
        details=details,
        resolution="let git ignore what is not source, or audit in a smaller directory with -C DIR",
    )
