"""Make files of what a spec says in bytes: a container engine can only bind what the host has.

Rule 1: they lie in a directory of the sandbox's own, below private (0700) parents, and are bound read-only.
Rule 2: after this a spec holds nothing but binds and tmpfs.
"""

from __future__ import annotations

import os

from cloister.errors import HostError
from cloister.sandbox.spec import Bind, CaBundle, Data, MaskDirectory, MaskFile, SandboxSpec, Tmpfs
from cloister.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloister.sandbox.spec import Mount

_BUNDLE, _EMPTY_FILE, _EMPTY_DIRECTORY = "ca-bundle", "empty", "empty.d"


def place(spec: SandboxSpec, directory: str, *, ca_bundle: int) -> SandboxSpec:
    """Write the files into `directory`, which is made. `ca_bundle` is read to its end. OSError if there is no room."""
    os.mkdir(directory, 0o700)
    os.mkdir(f"{directory}/{_EMPTY_DIRECTORY}", 0o555)
    _write(f"{directory}/{_EMPTY_FILE}", b"")
    with open(ca_bundle, "rb", closefd=False) as pipe:
        bundle = pipe.read()
    if not bundle:
        raise HostError("the gateway ended before it had made the sandbox's certificates")
    _write(f"{directory}/{_BUNDLE}", bundle)
    os.chmod(directory, 0o755)  # noqa: S103 - for the agent, who reaches it only through the binds
    return replace(spec, mounts=tuple(_placed(spec.mounts, directory)))


def _placed(mounts: tuple[Mount, ...], directory: str) -> Iterator[Mount]:
    for number, mount in enumerate(mounts):
        match mount:
            case Data(target=target, content=content):
                path = f"{directory}/{number}"
                _write(path, content)
                yield Bind(path, target)
            case CaBundle(target=target):
                yield Bind(f"{directory}/{_BUNDLE}", target)
            case MaskFile(target=target):
                yield Bind(f"{directory}/{_EMPTY_FILE}", target)
            case MaskDirectory(target=target):
                yield Bind(f"{directory}/{_EMPTY_DIRECTORY}", target)
            case Bind(optional=True, source=source) if not os.path.exists(source):
                continue
            case Bind() | Tmpfs():
                yield mount
            case _:
                raise TypeError(f"a container cannot be given {mount!r}")


def _write(path: str, content: bytes) -> None:
    """Readable by all: as root the agent is another uid. What is in it is the agent's to know."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o444)
    with open(descriptor, "wb") as file:
        file.write(content)
