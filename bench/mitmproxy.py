"""mitmproxy, in a virtual environment of its own, doing the same injection: what interception is compared with."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from world import CACHE, UnavailableError

VERSION = "11.0.2"
ADDON = """
class Inject:
    def requestheaders(self, flow):
        if flow.request.headers.get("authorization") == "Bearer {placeholder}":
            flow.request.headers["authorization"] = "Bearer {value}"
addons = [Inject()]
"""


def program() -> Path:
    """mitmdump, installed once."""
    directory = CACHE / "mitmproxy"
    found = directory / "bin" / "mitmdump"
    if not found.exists():
        for argv in (
            [sys.executable, "-m", "venv", str(directory)],
            [str(directory / "bin" / "pip"), "install", "--quiet", f"mitmproxy=={VERSION}"],
        ):
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode != 0:
                raise UnavailableError("pip could not install it")
    return found


class Mitmproxy:
    """A reverse proxy of one origin, on `port` of 127.0.0.1. Bodies over 1 MiB are streamed: it holds others whole."""

    def __init__(self, directory: Path, *, origin: str, placeholder: str, value: str) -> None:
        directory.mkdir()
        addon = directory / "inject.py"
        addon.write_text(ADDON.format(placeholder=placeholder, value=value))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._argv = [
            str(program()), "--quiet", "--mode", f"reverse:{origin}", "--listen-host", "127.0.0.1",
            "--listen-port", str(self.port), "--scripts", str(addon), "--set", f"confdir={directory}",
            "--set", "stream_large_bodies=1m", "--set", "ssl_insecure=true",
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
        raise RuntimeError("mitmproxy did not start")

    @property
    def pid(self) -> int:
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
