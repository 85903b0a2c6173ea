"""Files of credentials that are no good (ATTACKS ID-10), and one that looks odd and is good.

Rule 1: they lie in the verification's own state, and go with it.
"""

from __future__ import annotations

import os

from cloister.system import files

GOOD = "newline"
_MARK = b"attack-ID-10-split"


def made(state: str) -> dict[str, str]:
    """Make them; what is wrong with each → its path. The value in GOOD ends in a newline, which is no part of it."""
    directory = f"{state}/odd-credentials"
    files.make_private_directory(directory)
    paths = {
        kind: f"{directory}/{kind}"
        for kind in ("crlf", "lf", "cr", "nul", "link", "fifo", "readable", "empty", "blank", GOOD)
    }
    contents = {
        "crlf": b"x\r\nX-Split: " + _MARK, "lf": b"x\nX-Split: " + _MARK, "cr": b"x\rX-Split: " + _MARK,
        "nul": b"x\0" + _MARK, "readable": _MARK, "empty": b"", "blank": b" \n", GOOD: b"with-its-line-end\n",
    }  # fmt: skip
    for kind, content in contents.items():
        files.write_atomic(paths[kind], content)
    os.chmod(paths["readable"], 0o644)
    files.write_atomic(f"{directory}/target", _MARK)
    os.symlink(f"{directory}/target", paths["link"])
    os.mkfifo(paths["fifo"], 0o600)
    return paths
