"""What the clients of one life of a sandbox have tried and got: read outside, after the sandbox was killed at any point.

Rule 1: a line is one `write`, so that only what was in hand when the sandbox died is missing.
Rule 2: all bytes that came back are kept, but for those whose hash was verified: they are searched for secrets outside.
"""

from __future__ import annotations

import json
import os
import threading
import time


class Notebook:
    """`<life>.jsonl` has the trials, `<life>.got` the bytes."""

    def __init__(self, directory: str, life: str) -> None:
        self.life = life
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._lines = os.open(os.path.join(directory, f"{life}.jsonl"), flags, 0o644)
        self._got = os.open(os.path.join(directory, f"{life}.got"), flags, 0o644)
        self._lock = threading.Lock()

    def begin(self, trial: str, kind: str) -> None:
        self._write({"trial": trial, "kind": kind, "began": time.time()})

    def end(self, trial: str, outcome: str, detail: str) -> None:
        self._write({"trial": trial, "outcome": outcome, "detail": detail[:300], "ended": time.time()})

    def answered(self, trial: str, status: int, *, by_gateway: bool) -> None:
        """A response's head has come for this trial."""
        self._write({"trial": trial, "status": status, "by_gateway": by_gateway, "at": time.time()})

    def got(self, data: bytes) -> None:
        with self._lock:
            os.write(self._got, data + b"\n")

    def _write(self, content: dict[str, object]) -> None:
        with self._lock:
            os.write(self._lines, json.dumps(content).encode() + b"\n")
