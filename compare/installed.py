"""What npm and PyPI have, at pinned versions, installed once into .cache/, apart from all else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

from compare.engine import BASE, ROOT
from compare.sandbox import UnavailableError

CACHE = ROOT / ".cache/compare"
DEVCONTAINER_VERSION = "0.89.0"
MITMPROXY_VERSION = "11.0.2"
_PATIENCE_S = 300


def devcontainer() -> Path:
    """npm's @devcontainers/cli."""
    directory = CACHE / f"devcontainer-{DEVCONTAINER_VERSION}"
    program = directory / "node_modules/.bin/devcontainer"
    if not program.exists():
        package = f"@devcontainers/cli@{DEVCONTAINER_VERSION}"
        _installed(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(directory), package])
    return program


def mitmproxy() -> Path:
    """mitmproxy's packages, for the image's Python: this one has to be of the same version, for what is compiled."""
    python, ours = image_python(), f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != ours:
        raise UnavailableError(f"the image has Python {python}, and {ours} cannot install mitmproxy for it")
    directory = CACHE / f"mitmproxy-{MITMPROXY_VERSION}-{python}"
    if not (directory / "mitmproxy").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _installed([*pip, "--target", str(directory), f"mitmproxy=={MITMPROXY_VERSION}"])
    return directory


def image_python() -> str:
    """The version of the image's Python, as "3.11"."""
    if not BASE.exists():
        raise UnavailableError("there is no image")
    with tarfile.open(BASE) as archive:
        for member in archive:
            found = re.fullmatch(r"(?:\./)?usr/bin/python(3\.\d+)", member.name)
            if found:
                return found.group(1)
    raise UnavailableError("the image has no Python")


def _installed(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
    except FileNotFoundError as error:
        raise UnavailableError(f"{argv[0]} is not installed") from error
    if done.returncode:
        raise UnavailableError(f"{argv[0]} could not install {argv[-1]}: {done.stderr.strip()[-300:]}")
