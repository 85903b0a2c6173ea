"""What a start must know of the host and its user.

Rule 1: looked at once a start; everything after it works on values.
Rule 2: on the hot path: no module is imported that is not needed.
"""

from __future__ import annotations

import os

from cloister.errors import HostError
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT_ID = 1000  # inside, when cloister runs as root
AGENT_NAME = "agent"
# Where systems keep the certificates that they trust, in one file.
ROOT_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",
)
SYSTEM_DIRECTORIES = ("/usr/bin", "/usr/local/bin", "/bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The user as the sandbox shows them, and the environment that cloister was started with."""

    uid: int
    gid: int
    user_name: str
    home: str
    environ: Mapping[str, str]
    path: tuple[str, ...]

    @property
    def has_java(self) -> bool:
        """Whether a JVM is on PATH: it trusts no PEM file, but a store of its own format."""
        return any(os.access(f"{directory}/java", os.X_OK) for directory in self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bubblewrap:
    """The installed bubblewrap; `version` is such as (0, 8, 0)."""

    path: str
    version: tuple[int, ...]


def look(environ: Mapping[str, str]) -> Facts:
    """Look at the user. HostError if they have no home."""
    uid = os.geteuid()
    home, name = environ.get("HOME", ""), environ.get("USER") or environ.get("LOGNAME") or ""
    if not home.startswith("/") or not is_user_name(name):
        import pwd  # deferred: asks the name service

        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            entry = None
        if not home.startswith("/"):
            home = entry.pw_dir if entry else ""
        if not is_user_name(name):
            name = entry.pw_name if entry and is_user_name(entry.pw_name) else AGENT_NAME
    home = os.path.realpath(home) if home else ""
    if not os.path.isdir(home) or home == "/":
        raise HostError(
            f"your home directory {home!r} does not exist" if home else "you have no home directory",
            resolution="set HOME to a directory of yours",
        )
    return Facts(
        uid=uid or AGENT_ID,
        gid=os.getegid() if uid and os.getegid() else AGENT_ID,
        user_name=name if uid else AGENT_NAME,
        home=home,
        environ=environ,
        path=tuple(entry for entry in environ.get("PATH", "").split(":") if entry.startswith("/")),
    )


def is_user_name(name: str) -> bool:
    """Tell whether `name` can stand in passwd(5); the environment is not trusted to hold one."""
    return 0 < len(name) <= 64 and name.isascii() and all(c.isalnum() or c in "._-" for c in name)


def bubblewrap(path: tuple[str, ...], cache_directory: str, *, workspace: str) -> Bubblewrap:
    """Find bubblewrap and its version, which is kept in `cache_directory`. HostError if it is missing.

    One in `workspace` may be the agent's, and would be run outside the sandbox: it is none.
    """
    for directory in (*SYSTEM_DIRECTORIES, *path):
        program = f"{directory}/bwrap"
        if os.access(program, os.X_OK) and os.path.isfile(program):
            if directory not in SYSTEM_DIRECTORIES and _is_of(workspace, program):
                continue
            return Bubblewrap(path=program, version=_version(program, cache_directory))
    raise HostError(
        "bubblewrap, which makes the sandbox, is not installed",
        details="no program 'bwrap' was found on PATH",
        resolution="apt-get install bubblewrap   (or: cloister doctor)",
    )


def _is_of(workspace: str, program: str) -> bool:
    from cloister.sandbox.toolchains import (
        follows_link_in,
    )  # deferred: only without a bubblewrap of the system
    from cloister.sandbox.workspace import contains

    inside = contains(workspace, os.path.realpath(program))
    return inside or follows_link_in(workspace, program)


def _version(program: str, cache_directory: str) -> tuple[int, ...]:
    status = os.stat(program)
    key = f"{program} {status.st_size} {status.st_mtime_ns}"
    cache = f"{cache_directory}/bwrap-version"
    try:
        with open(cache, encoding="utf-8") as file:
            known_key, _, known = file.read().rpartition(" = ")
        if known_key == key:
            return _numbers(known)
    except (OSError, ValueError):
        pass
    from cloister.system import files, proc  # deferred: only after an upgrade

    output = proc.run([program, "--version"], timeout_s=10).output.decode(errors="replace")
    try:
        version = _numbers(output.split()[-1])
    except (ValueError, IndexError) as error:
        raise HostError(
            f"{program!r} does not tell its version",
            details=f"`{program} --version` printed {output[:200]!r}",
            resolution="reinstall bubblewrap: apt-get install --reinstall bubblewrap",
        ) from error
    files.make_private_directory(cache_directory)
    files.write_atomic(cache, f"{key} = {'.'.join(map(str, version))}".encode())
    return version


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip().split("."))
