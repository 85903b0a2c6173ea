"""The two processes that attack: the sandbox's first one, and one that enters it later. Each is the program in inside/,
run by the sandbox's own Python, with the host at the other end of its standard input and output.

Rule 1: both children are forked before this process has threads; the later one waits for its word.
Rule 2: the program goes in through standard input, so nothing of it has to lie anywhere; what comes out is read line
        by line, within limits and a deadline.
Rule 3: they die with this process.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from cloister.errors import CloisterError, HostError, UntrustedInputError
from cloister.system import linux
from cloister.verify import program

_BOOT = (
    "import sys, json; i = sys.stdin.buffer; CONFIG = json.loads(i.readline());"
    " exec(compile(i.read(CONFIG['bytes']), 'probes', 'exec'))"
)
COMMAND = ("python3", "-I", "-c", _BOOT)
NO_PYTHON = 127
_LINES_LIMIT = 200
_BYTES_LIMIT = 4 << 20
_END_S = 20.0
_WORDS_LIMIT_BYTES = 64 << 10


class Attacker:
    """A child that runs `begin`, which starts COMMAND with this child's standard streams and returns its exit code."""

    def __init__(self, begin: Callable[[], int], *, waits: bool = False) -> None:
        stdin_read, self._stdin = os.pipe()
        self._stdout, stdout_write = os.pipe()
        self._log = os.memfd_create("cloister-verify-log", os.MFD_CLOEXEC)
        go_read, self._go = os.pipe()
        ours = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            code = CloisterError.exit_code
            try:
                linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == ours:
                    for source, number in ((stdin_read, 0), (stdout_write, 1), (self._log, 2)):
                        os.dup2(source, number)
                    os.close(self._stdin)
                    os.close(self._stdout)
                    os.close(self._go)
                    if not waits or os.read(go_read, 1):
                        code = begin()
            except CloisterError as error:
                os.write(2, f"{error}\n".encode())
            except BaseException as error:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(code)
        for descriptor in (stdin_read, stdout_write, go_read):
            os.close(descriptor)
        self._code: int | None = None

    def go(self) -> None:
        """Let one begin that waits."""
        os.write(self._go, b"g")

    def lines(self, config: Mapping[str, object], timeout_s: float) -> Iterator[bytes]:
        """Send the program; yield the lines that it prints. HostError if it does not print its last one in time."""
        text = program.text().encode()
        message = json.dumps({**config, "bytes": len(text)}).encode() + b"\n" + text
        deadline = time.monotonic() + timeout_s
        self._send(message, deadline)
        yield from self.heard(deadline)

    def heard(self, deadline: float) -> Iterator[bytes]:
        """The lines that it prints, up to its last one. HostError if that does not come in time."""
        data, received, count = b"", 0, 0
        while True:
            if not select.select([self._stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise HostError("the probes did not end in time", details=self.words())
            part = os.read(self._stdout, 1 << 16)
            received += len(part)
            if not part:
                raise self._ended()
            if received > _BYTES_LIMIT:
                raise UntrustedInputError("the probes printed too much")
            data += part
            *lines, data = data.split(b"\n")
            for line in lines:
                count += 1
                if count > _LINES_LIMIT:
                    raise UntrustedInputError("the probes printed too many lines")
                yield line
                if line.startswith(b'{"done"'):
                    return

    def end(self) -> int:
        """Let it end, or make it. Returns its exit code. Idempotent."""
        if self._code is not None:
            return self._code
        os.close(self._stdin)
        os.close(self._go)
        pidfd = os.pidfd_open(self._pid)
        if not select.select([pidfd], [], [], _END_S)[0]:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        os.close(pidfd)
        os.close(self._stdout)
        self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._code

    def words(self) -> str:
        """What it said on standard error."""
        return os.pread(self._log, _WORDS_LIMIT_BYTES, 0).decode(errors="replace").strip()

    def _send(self, message: bytes, deadline: float) -> None:
        view = memoryview(message)
        os.set_blocking(self._stdin, False)
        while view:
            ready = select.select([self._stdout], [self._stdin], [], max(0.0, deadline - time.monotonic()))
            if ready[0] and not ready[1]:
                return  # it has ended, or prints already: the reader finds out
            if not ready[1]:
                raise HostError("the sandbox did not take the probes in time", details=self.words())
            try:
                view = view[os.write(self._stdin, view) :]
            except BrokenPipeError:
                return

    def _ended(self) -> CloisterError:
        code = self.end()
        if code == NO_PYTHON:
            return HostError(
                "the sandbox has no Python, which the probes need",
                details=self.words(),
                resolution="use an image that has `python3`, or verify another runtime",
            )
        return HostError(
            f"the sandbox ended with code {code} before the probes were done",
            details=self.words(),
            resolution="run: cloister doctor",
        )
