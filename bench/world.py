"""A scratch world for measurements (home, configuration, state, project), and what is compared with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = REPOSITORY / ".cache" / "bench"
SRT_VERSION = "0.0.83"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class UnavailableError(Exception):
    """Something to compare with cannot be had here; the table says why."""


@dataclass(kw_only=True)
class World:
    """`base/project` is the workspace; nothing outside `base` is touched."""

    base: Path

    def __enter__(self) -> Self:
        for directory in (self.project, self.home, self.base / "config" / "cloister"):
            directory.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def project(self) -> Path:
        return self.base / "project"

    @property
    def home(self) -> Path:
        return self.base / "home"

    def configure(self, text: str) -> None:
        (self.base / "config" / "cloister" / "config.toml").write_text(text)

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.base / "config"),
            "XDG_STATE_HOME": str(self.base / "state"),
            "PATH": f"{os.path.dirname(sys.executable)}:{SYSTEM_PATH}",
            "LANG": "C.UTF-8",
        }

    def records(self) -> list[dict[str, object]]:
        """The records of live sandboxes (docs/architecture.md)."""
        return [
            json.loads(path.read_text()) for path in self.base.glob("state/cloister/projects/*/runs/*.json")
        ]


def world() -> World:
    base = Path(tempfile.mkdtemp(prefix="cloister-bench-", dir="/var/tmp"))
    base.chmod(0o755)
    return World(base=base)


def cloister_program() -> str:
    return os.path.join(os.path.dirname(sys.executable), "cloister")


def cloister_argv(*command: str) -> list[str]:
    return [cloister_program(), "run", "--", *command]


def bwrap_argv(*command: str) -> list[str]:
    """Bare bubblewrap with the namespaces that cloister uses, and the least of mounts."""
    return [
        "bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net",
        "--unshare-cgroup-try", "--die-with-parent",
        "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", *command,
    ]  # fmt: skip


def srt() -> tuple[list[str], str]:
    """The argv of npm's @anthropic-ai/sandbox-runtime and the PATH it needs; installed into .cache/ once."""
    for needed in ("node", "npm", "socat"):
        if shutil.which(needed) is None:
            raise UnavailableError(f"{needed} is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    program = CACHE / "srt" / "node_modules" / ".bin" / "srt"
    if not program.exists():
        package = f"@anthropic-ai/sandbox-runtime@{SRT_VERSION}"
        install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(CACHE / "srt"), package]
        done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=180)
        if done.returncode != 0:
            raise UnavailableError("npm could not install it")
    path = SYSTEM_PATH
    if shutil.which("rg") is None:
        path = f"{_ripgrep()}:{path}"
    return [str(program)], path


def _ripgrep() -> Path:
    """Debian's ripgrep, unpacked into the cache: nothing is installed on the host."""
    directory = CACHE / "rg"
    if not (directory / "usr/bin/rg").exists():
        if shutil.which("apt-get") is None:
            raise UnavailableError("ripgrep is not installed")
        subprocess.run(
            ["apt-get", "download", "ripgrep"], cwd=CACHE, capture_output=True, check=False, timeout=60
        )
        packages = sorted(CACHE.glob("ripgrep_*.deb"))
        if not packages:
            raise UnavailableError("ripgrep is not installed, and apt-get cannot download it")
        subprocess.run(["dpkg", "-x", str(packages[-1]), str(directory)], check=True)
    return directory / "usr/bin"
