"""`cloister exec` in a sandbox of a container engine: become the engine's own client, which is as fast as it gets.

Rule 1: the engine gives a later process what the first one has: no capability, no new privileges, the same filter,
        user, mounts and limits; nothing is passed here that would change one of them.
Rule 2: on the path that is measured: one execve, and nothing is asked before.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from cloister.errors import HostError
from cloister.runtimes import oci_exec_argv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.sandbox.registry import Record


def execute(
    record: Record, command: tuple[str, ...], *, environment: Mapping[str, str], directory: str
) -> NoReturn:
    """Run it: this process becomes the engine's client, whose exit code is the command's. HostError if it is gone."""
    container = record.container
    if container is None:
        raise TypeError("not a container's sandbox")
    text, others = oci_exec_argv.environment_file(tuple(environment.items()))
    theirs = dict(container.environment)
    others = tuple((name, value) for name, value in others if name not in theirs)
    descriptor = os.memfd_create("cloister-environment", 0)  # without MFD_CLOEXEC: the client reads it
    os.write(descriptor, text)
    os.lseek(descriptor, 0, os.SEEK_SET)
    arguments = oci_exec_argv.execute(
        oci_exec_argv.Names(sandbox=record.sandbox_id, project=""),
        command,
        directory=directory,
        terminal=all(stream.isatty() for stream in (sys.stdin, sys.stdout)),
        environment=descriptor,
        passed=tuple(name for name, _ in others),
        has_sh=container.has_sh,
        pids=container.pids,
        memory_bytes=container.memory_bytes,
    )
    try:
        os.execve(container.program, [container.program, *arguments], {**theirs, **dict(others)})
    except OSError as error:
        raise HostError(
            f"{container.program!r} cannot be started: {error.strerror}",
            resolution=f"see whether {container.engine} is installed still",
        ) from error
