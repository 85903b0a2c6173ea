"""Starting programs: the only module that does (the sandbox's own launch, in runtimes/, forks for itself).

Rule 1: argv lists only, never a shell. Rule 2: the child's environment is written out, never inherited.
Rule 3: for programs of the host that we trust: a deadline, and what they print is cut, not streamed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended, and what it printed (cut at the limit)."""

    code: int
    output: bytes
    errors: bytes


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    directory: str = "/",
    stdin: bytes = b"",
) -> Finished:
    """Run a program of the host to its end.

    OSError if it cannot be started; TimeoutError when `timeout_s` has passed (it is killed).
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            env=dict(environment) if environment is not None else clean_environment(),
            cwd=directory,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{argv[0]!r} did not end within {timeout_s:g} s") from error
    return Finished(
        code=done.returncode, output=done.stdout[:OUTPUT_LIMIT_BYTES], errors=done.stderr[:OUTPUT_LIMIT_BYTES]
    )


def start(argv: Sequence[str], *, descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a program with a clean environment, no standard input or output, and the named descriptors."""
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
        cwd="/",
        pass_fds=tuple(descriptors),
    )


def reap(child: subprocess.Popen[bytes], *, timeout_s: float) -> int:
    """Wait for a started program; kill it when the time has passed. Returns its exit code."""
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


def clean_environment() -> dict[str, str]:
    """What a host program of ours needs to run, and nothing of the user's environment."""
    return {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": os.environ.get("HOME", "/")}
