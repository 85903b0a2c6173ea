"""Run the attacking program in a peer's sandbox, and read what it says.

Rule: what else a peer prints is passed over; a line of the program's is taken, within a deadline.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cloister.errors import UntrustedInputError
from cloister.verify import program, verdict
from cloister.verify.attacker import COMMAND
from cloister.verify.verdict import Told
from compare.sandbox import Sandbox, UnavailableError, as_user

_WAY = Path(__file__).with_name("way.py")
_END_S = 20.0


def argv(prefix: Sequence[str], *, quoted: bool) -> list[str]:
    """The program's own argv behind a peer's."""
    return [*prefix, shlex.join(COMMAND)] if quoted else [*prefix, *COMMAND]


@contextmanager
def told(
    sandbox: Sandbox, prefix: Sequence[str], config: Mapping[str, object], directory: str, timeout_s: float
) -> Iterator[Mapping[str, Told]]:
    """What the probes said. The program still waits in the sandbox within the context. UnavailableError if it did not
    get as far as its first probe."""
    text = program.text(_WAY.read_text(encoding="utf-8")).encode()
    message = json.dumps({**config, "bytes": len(text)}).encode() + b"\n" + text
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            as_user(argv(prefix, quoted=sandbox.quoted)),
            env=dict(sandbox.environment), cwd=directory,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words,
        )  # fmt: skip
        patience = threading.Timer(timeout_s, process.kill)
        patience.start()
        try:
            found = _exchanged(process, message)
            if not found:
                process.kill()
                process.wait()
                words.seek(0)
                said = words.read(1 << 16).decode(errors="replace").strip().splitlines()
                raise UnavailableError(f"the probes did not run: {' '.join(said[:12]) or 'it said nothing'}")
            yield found
        finally:
            patience.cancel()
            _let_go(process)


def _exchanged(process: subprocess.Popen[bytes], message: bytes) -> dict[str, Told]:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process has no pipes")
    with suppress(BrokenPipeError):
        process.stdin.write(message)
        process.stdin.flush()
    found: dict[str, Told] = {}
    for line in process.stdout:
        if not line.startswith((b'{"id"', b'{"done"')):
            continue
        with suppress(UntrustedInputError):
            parsed = verdict.parse(line)
            if parsed is None:
                break
            found[parsed[0]] = parsed[1]
    return found


def _let_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
