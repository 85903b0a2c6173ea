"""The gate at which a container's command waits until it has been looked at."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cloister.runtimes import oci, oci_argv

LONGER_THAN_A_LOOK_S = 0.2


def running(directory: Path, client: subprocess.Popen[bytes]) -> oci.Running:
    for name in (oci_argv.READY, oci_argv.GO):
        os.mkfifo(directory / name)
    how: Any = SimpleNamespace(
        engine=None, names=None, attached=True, gated=True, public_directory=str(directory)
    )
    line: Any = None
    found = oci.Running(how, line)
    found.client = client
    return found


def test_a_command_that_is_slow_to_come_to_the_gate_is_let_go(tmp_path: Path) -> None:
    script = f"read -r _; read -r go <{tmp_path}/{oci_argv.GO} || exit 125; printf %s $go"
    client = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        release = threading.Thread(target=running(tmp_path, client).release)
        release.start()
        release.join(LONGER_THAN_A_LOOK_S)
        out, _ = client.communicate(b"\n", timeout=30)
        release.join(30)
    finally:
        client.kill()
    assert (client.returncode, out) == (0, b"go")
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as client:
        running(tmp_path, client).release()
    assert list(tmp_path.iterdir()) == []
