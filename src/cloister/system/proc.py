"""Starting programs: the only module that does (the sandbox's own launch, in runtimes/, forks for itself).

Rule 1: argv lists only, never a shell. Rule 2: the child's environment is written out, never inherited.
Rule 3: for programs of the host that we trust: a deadline, and what they print is cut, not streamed.
Rule 4: `capture` ends a program with everything that it has started: those that fetch secrets ask, wait and hang.
"""

from __future__ import annotations

import io
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from cloister.values import dataclass

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LIMIT_BYTES = 4 << 20
LINE_LIMIT = 8 << 10
_CHUNK_BYTES = 1 << 16
_GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended, and what it printed (cut at the limit)."""

    code: int
    output: bytes
    errors: bytes


class OutputLimitError(Exception):
    """A program printed more than it may; it has been killed."""


class Running:
    """The programs that `capture` runs at the moment, by their process groups, so that all can be ended at once.

    After `kill_all` no other one starts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._ended = False

    @contextmanager
    def holding(self, group: int) -> Iterator[None]:
        """Count a group in. Its leader must not be waited for within: its number would be free for others."""
        with self._lock:
            self._groups.add(group)
            if self._ended:
                kill_group(group)
        try:
            yield
        finally:
            with self._lock:
                self._groups.discard(group)

    def kill_all(self) -> None:
        """End them, and those that come later."""
        with self._lock:
            self._ended = True
            for group in self._groups:
                kill_group(group)


def kill_group(group: int) -> None:
    """SIGKILL a process group of ours; it may be gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


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


def capture(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    limit_bytes: int,
    descriptors: Sequence[int] = (),
    running: Running | None = None,
) -> Finished:
    """Run a program that prints a secret: no input, no terminal, in "/", and in a session of its own.

    OSError if it cannot be started; TimeoutError or OutputLimitError if it takes or prints too much: it is killed then,
    with its process group. A helper that it leaves in the background may keep the pipes open and is not waited for.
    """
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd="/",
        pass_fds=tuple(descriptors),
        start_new_session=True,  # else a prompt for a passphrase would reach for the user's terminal
    )
    whole = False
    try:
        with (running or Running()).holding(child.pid):
            try:
                output, errors = _read_to_end(child, time.monotonic() + timeout_s, limit_bytes)
                whole = True
            finally:
                if not whole:
                    kill_group(child.pid)
    except TimeoutError:
        raise TimeoutError(f"{argv[0]!r} did not end within {timeout_s:g} s") from None
    finally:
        child.wait()
        for pipe in filter(None, (child.stdout, child.stderr)):
            pipe.close()
    return Finished(code=child.returncode, output=output, errors=errors)


def _read_to_end(child: subprocess.Popen[bytes], deadline: float, limit_bytes: int) -> tuple[bytes, bytes]:
    """What it prints until it has ended; of its errors, the last `limit_bytes`. It is not waited for (`Running`)."""
    if child.stdout is None or child.stderr is None:
        raise ValueError("its output does not come to us")
    texts = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    output, errors = texts.values()
    pidfd = os.pidfd_open(child.pid)
    try:
        with selectors.DefaultSelector() as selector:
            for descriptor in texts:
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(pidfd, selectors.EVENT_READ)
            ended = False
            while not ended:
                ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if not ready:
                    raise TimeoutError
                ended = pidfd in ready  # then everything that it has written is in the pipes
                for descriptor in texts if ended else ready:
                    if not _drain(descriptor, texts[descriptor], whole=ended) and not ended:
                        selector.unregister(descriptor)
                    if len(output) > limit_bytes:
                        raise OutputLimitError
                    del errors[:-limit_bytes]
                if time.monotonic() > deadline and not ended:
                    raise TimeoutError
    finally:
        os.close(pidfd)
    return bytes(output), bytes(errors)


def _drain(descriptor: int, text: bytearray, *, whole: bool) -> bool:
    """Append what can be read, once or (what a pipe holds is bounded) until there is no more; False at the end."""
    for _ in range(64 if whole else 1):
        with suppress(BlockingIOError):
            data = os.read(descriptor, _CHUNK_BYTES)
            text += data
            if data:
                continue
            return False
        return True
    return True


def follow(
    argv: Sequence[str], *, environment: Mapping[str, str], timeout_s: float, hear: Callable[[str], None]
) -> int:
    """Run a program that a person watches: `hear` gets each line, of errors too, cut at LINE_LIMIT. The exit code.

    It stays in the terminal's group, so that Ctrl-C ends it as it would alone. OSError if it cannot be started;
    TimeoutError when `timeout_s` has passed (it is killed).
    """
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd="/",
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(timeout_s, end)
    timer.start()
    try:
        with child.stdout or io.BytesIO() as pipe:
            while line := pipe.readline(LINE_LIMIT):
                hear(line.decode(errors="replace").rstrip("\r\n"))
        code = child.wait()
    finally:
        timer.cancel()
        if child.poll() is None:
            child.terminate()
            reap(child, timeout_s=_GRACE_S)
    if late.is_set():
        raise TimeoutError(f"{argv[0]!r} did not end within {timeout_s:g} s")
    return code


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


def begin(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    descriptors: Sequence[int] = (),
    attached: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program whose output is read later, or (`attached`) with this process's standard streams. OSError."""
    stream = None if attached else subprocess.PIPE
    return subprocess.Popen(
        list(argv),
        stdin=None if attached else subprocess.DEVNULL,
        stdout=stream,
        stderr=stream,
        env=dict(environment),
        cwd="/",
        pass_fds=tuple(descriptors),
    )


def converse(argv: Sequence[str], *, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program with which we talk: its three streams are pipes. OSError."""
    return subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd="/",
        bufsize=0,
    )


def finish(child: subprocess.Popen[bytes], *, timeout_s: float) -> Finished:
    """The end of a program that `begin` has started. TimeoutError when the time has passed (it is killed)."""
    try:
        output, errors = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        child.kill()
        child.communicate()
        raise TimeoutError(f"it did not end within {timeout_s:g} s") from error
    return Finished(
        code=child.returncode,
        output=(output or b"")[:OUTPUT_LIMIT_BYTES],
        errors=(errors or b"")[:OUTPUT_LIMIT_BYTES],
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
