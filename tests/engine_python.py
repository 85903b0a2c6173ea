"""IMAGE with a Python in it: that of this host's system, which is of the same release as the image."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import tempfile
from dataclasses import replace

from tests.engines import IMAGE, Engine
from tests.engines import PYTHON_IMAGE as NAME

_PYTHON = "/usr/bin/python3"


def image(engine: Engine) -> str:
    """Its reference. It is made once a run, and removed with the engine (tests/engines.py)."""
    if not engine("images", "--quiet", NAME):
        _make(engine)
    return f"{NAME}:latest"


def _make(engine: Engine) -> None:
    engine("create", "--name", NAME, "--network", "none", IMAGE, "true")
    try:
        # Podman 4 leaves what it has been given in a temporary file.
        with tempfile.TemporaryDirectory(prefix="cloister-given-", dir="/var/tmp") as temporary:
            os.chmod(temporary, 0o1777)  # the engine may be an ordinary user's
            copying = replace(engine, environment={**engine.environment, "TMPDIR": temporary})
            copying("cp", "-", f"{NAME}:/", stdin=_system_python())
        engine("commit", NAME, NAME)
    finally:
        engine("rm", "--force", NAME)


def _system_python() -> bytes:
    program = os.path.realpath(_PYTHON)
    library = subprocess.run(
        [_PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    modules = [f"{library}/lib-dynload/{one}" for one in os.listdir(f"{library}/lib-dynload")]
    linked = subprocess.run(["ldd", program, *modules], capture_output=True, text=True, check=False).stdout
    needed = {path for path in re.findall(r"(/\S+\.so\S*)", linked) if not path.startswith(library)}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        archive.add(program, _PYTHON)
        archive.add(library, library, filter=lambda one: None if "__pycache__" in one.name else one)
        for path in sorted(needed - {found for found in needed if found.endswith(":")}):
            archive.add(path, path if path.startswith("/usr/") else f"/usr{path}")
    return content.getvalue()
