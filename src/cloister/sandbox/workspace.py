"""Find the workspace, and refuse a directory that must never be one.

A workspace is the one directory of the host that the sandbox writes. Rule 1: finding never climbs to the
home, above it, or to `/`. Rule 2: a directory that holds what the host runs or trusts (the home, system
directories, credentials, cloister's own state) is refused, and so is every directory that contains one.
Rule 3: paths are real paths: a symlinked component decides nothing.
"""

from __future__ import annotations

import os
import sys

from cloister.errors import WorkspaceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# Nothing at or below these is a workspace, but for EXCEPTIONS.
SYSTEM_TREES = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/lost+found", "/proc",
    "/run", "/sbin", "/sys", "/usr", "/nix", "/snap", "/var/lib/dpkg", "/var/lib/docker", "/var/log",
    "/var/spool",
)  # fmt: skip
EXCEPTIONS = ("/usr/src", "/usr/local/src", "/run/media")

# These hold many people's things: a directory below one may be a workspace, the directory itself may not.
SHARED_DIRECTORIES = (
    "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var", "/var/cache", "/var/lib", "/var/tmp",  # noqa: S108
    "/usr/src", "/usr/local/src", "/run/media", "/Users", "/Volumes",
)  # fmt: skip

# Below the home: credentials, settings and programs of the user.
PRIVATE_TREES = (
    ".ssh", ".aws", ".azure", ".gnupg", ".config", ".kube", ".docker", ".oci", ".password-store", ".pki",
    ".terraform.d", ".mozilla", ".thunderbird", ".cargo", ".rustup", ".pyenv", ".nvm", ".volta",
    ".sdkman", ".rbenv", ".bun", ".deno", ".asdf", ".npm", ".local/bin", ".local/lib", ".local/state",
    ".local/share/keyrings", ".local/share/uv", ".local/share/mise", ".local/share/applications",
    ".vscode", ".vscode-server", ".cursor-server", ".snap", "snap", "bin", "go/bin", "Library",
)  # fmt: skip
PRIVATE_DIRECTORIES = (".local", ".local/share", ".cache", ".claude", ".codex", ".cursor", ".gemini", "go")


# Where this program and its interpreter lie: a virtual environment in the workspace is the agent's to write.
OWN_PROGRAM = (os.path.dirname(os.path.dirname(os.path.realpath(__file__))), os.path.realpath(sys.prefix))


def find(start: str, home: str) -> str:
    """Name the workspace of `start`: its nearest ancestor with a cloister.toml, or a .git, or itself."""
    start = os.path.realpath(start)
    climb = _ancestors_below_home(start, os.path.realpath(home))
    # A live sandbox holds empty directories under both names (see placeholders.py): those mark nothing.
    for directory in climb:
        if os.path.isfile(f"{directory}/cloister.toml"):
            return directory
    for directory in climb:
        if os.path.isfile(f"{directory}/.git") or os.path.lexists(f"{directory}/.git/HEAD"):
            return directory
    return start


def check(workspace: str, home: str, environ: Mapping[str, str]) -> None:
    """Raise WorkspaceError unless `workspace` may be written by an agent."""
    if any(ord(character) < 32 or ord(character) == 127 for character in workspace):
        raise WorkspaceError(
            f"the workspace's path {workspace!r} contains a control character",
            resolution="rename the directory",
        )
    check_directory(workspace)
    real = os.path.realpath(workspace)
    reason = _reason_against(real, os.path.realpath(home), environ)
    if reason:
        raise WorkspaceError(
            f"the workspace {real!r} cannot be given to a sandbox: {reason}",
            details="An agent may write everything in its workspace.",
            resolution="cd into a project's own directory, or name one with --workspace DIRECTORY",
        )
    if not os.access(real, os.W_OK | os.X_OK):
        raise WorkspaceError(
            f"the workspace {real!r} is not writable by you",
            resolution=f"become its owner (`sudo chown -R $USER {real}`), or name another with --workspace",
        )


def check_directory(named: str) -> None:
    """Raise WorkspaceError unless there is such a directory: a workspace above it does not make one of it."""
    if not os.path.lexists(named):
        from shlex import quote  # seldom

        raise WorkspaceError(
            f"the workspace {named!r} does not exist",
            resolution=f"create it (`mkdir -p {quote(named)}`), or name another with --workspace",
        )
    if not os.path.isdir(named):
        raise WorkspaceError(
            f"the workspace {named!r} is not a directory",
            resolution="name the directory that contains it with --workspace",
        )


def own_directories(home: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """List where cloister keeps its configuration, state, data and cache."""
    places = (
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_STATE_HOME", ".local/state"),
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_CACHE_HOME", ".cache"),
    )
    found = []
    for variable, default in places:
        base = environ.get(variable, "")
        base = base if base.startswith("/") else f"{home}/{default}"
        found.append(os.path.realpath(f"{base}/cloister"))
    return tuple(found)


def _reason_against(real: str, home: str, environ: Mapping[str, str]) -> str:
    if real == "/":
        return "it is the root of the file system"
    if real == home:
        return "it is your home directory"
    if contains(real, home):
        return f"it contains your home directory {home!r}"
    for own in own_directories(home, environ):
        if contains(own, real):
            return f"it belongs to cloister's own directory {own!r}"
        if contains(real, own):
            return f"it contains cloister's own directory {own!r}"
    for name in PRIVATE_TREES:
        if contains(f"{home}/{name}", real):
            return f"{'~/' + name!r} holds credentials, settings or programs of yours"
    for name in PRIVATE_DIRECTORIES:
        if real == f"{home}/{name}":
            return f"{'~/' + name!r} holds settings or programs of yours"
    for program in OWN_PROGRAM:
        if contains(real, program):
            return f"it contains the cloister that you run, in {program!r}, which the agent could rewrite"
    if real in SHARED_DIRECTORIES:
        return "it is a system directory that many programs share"
    if not any(contains(exception, real) for exception in EXCEPTIONS):
        for tree in SYSTEM_TREES:
            if contains(tree, real):
                return f"{tree!r} is a system directory"
    return ""


def contains(outer: str, inner: str) -> bool:
    """Tell whether `inner` is `outer` or below it; both are normal absolute paths."""
    return outer in (inner, "/") or inner.startswith(f"{outer}/")


def _ancestors_below_home(start: str, home: str) -> list[str]:
    """List `start` and its ancestors, nearest first, without `/`, the home and what lies above the home."""
    found = []
    directory = start
    while directory != "/" and not contains(directory, home):
        found.append(directory)
        directory = os.path.dirname(directory)
    return found
