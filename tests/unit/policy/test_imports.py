"""The judges do no I/O and load fast: they are part of the gateway's start."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = {"socket", "ssl", "asyncio", "subprocess", "pydantic", "idna", "tomllib"}


def test_judges_import_nothing_that_does_io_or_is_slow() -> None:
    program = (
        "import sys\n"
        "from cloister.policy import address, codec, decide, match, names, paths\n"
        "print(*sorted(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert "cloister.policy.decide" in loaded.split()
    assert not FORBIDDEN & set(loaded.split())
