"""Render a SandboxSpec as bubblewrap's options and argv.

Rule 1: no I/O. Descriptors are numbers that the caller will have opened.
Rule 2: the options travel through a descriptor (`--args`), not argv: they hold the sandbox's environment, and
every user of the host may read argv. bubblewrap itself must be started with an EMPTY environment: its own
stays readable as /proc/1/environ in the sandbox, and its dynamic loader would obey LD_PRELOAD.
Rule 3: the caller has entered the network namespace without an exit and is uid 0 of a user namespace there,
so the network is never unshared here; everything else is.
Rule 4: no --new-session, or shells would lose job control. What it guards against, TIOCSTI, seccomp.py
refuses.
Rule 5: the root is remounted read-only last, so data written into it is as immutable as a read-only mount,
and costs a quarter of one (0.04 ms against 0.15 ms).
"""

from __future__ import annotations

from cloister.runtimes.start_script import start_argv
from cloister.sandbox.spec import (
    Bind,
    CaBundle,
    Data,
    Dev,
    Directory,
    MaskDirectory,
    MaskFile,
    Proc,
    SandboxSpec,
    Symlink,
    Tmpfs,
)
from cloister.values import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.sandbox.spec import Mount

MAX_OPTIONS = 9000  # bubblewrap's MAX_ARGS
_MASK_BYTES = 4096  # one page

# Put before the script to hold the command back: see invariants.py and mount_check.py. bubblewrap's own --block-fd
# tells nobody when the mounts are made. End of file, because the session died, is no permission.
READY, GO = 9, 8  # descriptors; dash knows only one digit
HOLD_SCRIPT = "printf r >&9; read -r go <&8 || exit 125; exec 8<&- 9>&-\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class BwrapFeatures:
    """What the installed bubblewrap can do."""

    disable_userns: bool = True  # --disable-userns, since 0.8.0
    tmpfs_size: bool = True  # --size, since 0.7.0

    @classmethod
    def of_version(cls, version: tuple[int, ...]) -> BwrapFeatures:
        """Name the features of a release such as (0, 8, 0)."""
        return cls(disable_userns=version >= (0, 8), tmpfs_size=version >= (0, 7))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """Descriptors that bubblewrap inherits. It closes those that it reads; none reaches the command."""

    options: int  # a memfd that holds `options_text`, at offset 0
    seccomp: int
    ca_bundle: int
    status: int | None = None  # --json-status-fd
    data: Mapping[str, int] = field(default_factory=dict)  # of each Data mount, by its target


def argv(spec: SandboxSpec, *, bwrap: str, descriptors: Descriptors, rlimits: bool) -> list[str]:
    """Render what is executed, with an empty environment. `rlimits`: no control group holds the limits.

    The command waits, all mounts made, until the caller, who has read a byte from the pipe that is inherited as READY,
    writes a line to the one inherited as GO.
    """
    limits = spec.limits if rlimits else None
    start = start_argv(
        spec.command,
        pids=limits.pids if limits is not None else None,
        memory_bytes=limits.memory_bytes if limits is not None else None,
        before=HOLD_SCRIPT,
    )
    return [bwrap, "--args", str(descriptors.options), "--", *start]


def options_text(options: list[str]) -> bytes:
    """Encode options for the descriptor `Descriptors.options`."""
    return b"".join(option.encode(errors="surrogateescape") + b"\0" for option in options)


def options(
    spec: SandboxSpec, *, features: BwrapFeatures, descriptors: Descriptors, empty_file: str
) -> list[str]:
    """Render bubblewrap's options. `empty_file` is an empty file of the host, shown for masked files."""
    rendered = [
        "--unshare-user", "--uid", str(spec.uid), "--gid", str(spec.gid),
        "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
        "--hostname", spec.hostname, "--die-with-parent", "--cap-drop", "ALL",
    ]  # fmt: skip
    if features.disable_userns:
        rendered.append("--disable-userns")
    rendered += ["--seccomp", str(descriptors.seccomp)]
    if descriptors.status is not None:
        rendered += ["--json-status-fd", str(descriptors.status)]
    mounted: list[str] = []
    for mount in spec.mounts:
        rendered += _mount(mount, features, descriptors, empty_file, mounted)
        if not isinstance(mount, Symlink | Directory | CaBundle | Data):
            mounted.append(mount.target)
    rendered += ["--remount-ro", "/", "--clearenv"]
    for name, value in spec.environment:
        rendered += ["--setenv", name, value]
    return [*rendered, "--chdir", spec.cwd]


def _mount(
    mount: Mount, features: BwrapFeatures, descriptors: Descriptors, empty_file: str, mounted: list[str]
) -> Iterator[str]:
    match mount:
        case Bind(source, target, writable, optional):
            yield f"--{'' if writable else 'ro-'}bind{'-try' if optional else ''}"
            yield from (source, target)
        case Data(target, _, mode):
            yield from _file(descriptors.data[target], target, mode, mounted)
        case CaBundle(target):
            yield from _file(descriptors.ca_bundle, target, 0o444, mounted)
        case Tmpfs(target, size_bytes, mode):
            yield from ("--perms", f"{mode:04o}")
            if size_bytes is not None and features.tmpfs_size:
                yield from ("--size", str(size_bytes))
            yield from ("--tmpfs", target)
        case Symlink(target, to):
            yield from ("--symlink", to, target)
        case Directory(target, mode):
            yield from ("--perms", f"{mode:04o}", "--dir", target)
        case MaskFile(target):
            yield from ("--ro-bind", empty_file, target)
        case MaskDirectory(target):
            # Whoever changes the mode writes into memory, not to the host; remounting costs 0.1 ms.
            yield from ("--perms", "0555")
            if features.tmpfs_size:  # nor into much of it
                yield from ("--size", str(_MASK_BYTES))
            yield from ("--tmpfs", target)
        case Proc(target):
            yield from ("--proc", target)
        case Dev(target):
            yield from (
                "--dev",
                target,
                "--remount-ro",
                target,
            )  # a tmpfs of no size; what is mounted in it stays


def _file(descriptor: int, target: str, mode: int, mounted: list[str]) -> tuple[str, ...]:
    """Copy into the root's own tmpfs. Upon a mount, `--file` would write through to the host: bind there."""
    upon_mount = any(target == place or target.startswith(f"{place}/") for place in mounted)
    option = "--ro-bind-data" if upon_mount else "--file"
    return ("--perms", f"{mode:04o}", option, str(descriptor), target)
