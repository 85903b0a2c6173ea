"""Where a holder container calls: reachable for it, root without capabilities, whoever made it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cloister.network import holder
from cloister.runtimes.oci_holder import Line


def test_the_holder_may_read_search_and_call_whatever_the_umask(tmp_path: Path) -> None:
    directory = tmp_path / "holder"
    before = os.umask(0o077)
    try:
        line = Line(str(directory))
    finally:
        os.umask(before)
    try:
        mode = stat.S_IMODE(directory.stat().st_mode)
        assert mode & stat.S_IROTH, "it watches for the socket: inotify_add_watch(2) wants to read"
        assert mode & stat.S_IXOTH
        assert not mode & stat.S_IWOTH
        assert (directory / holder.SOCKET).stat().st_mode & stat.S_IWOTH
    finally:
        line.close()
