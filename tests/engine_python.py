"""IMAGE with a Python in it, and other programs: those of this host's system, which is of the same release."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.engines import IMAGE, Engine

_NAME = "cloister-test-python"
_PYTHON = "/usr/bin/python3"


@contextmanager
def image(engine: Engine, *programs: str) -> Iterator[str]:
    """Its reference, as long as it is there. `programs`: of this host's system, with their libraries."""
    name = f"{_NAME}-{os.getpid()}"
    engine("create", "--name", name, "--network", "none", IMAGE, "true")
    try:
        engine("cp", "-", f"{name}:/", stdin=_system_python(programs))
        engine("commit", name, name)
    finally:
        engine("rm", "--force", name)
    yield f"{name}:latest"
    engine("rmi", "--force", name, check=False)


def _system_python(programs: tuple[str, ...]) -> bytes:
    program = os.path.realpath(_PYTHON)
    library = subprocess.run(
        [_PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    modules = [f"{library}/lib-dynload/{one}" for one in os.listdir(f"{library}/lib-dynload")]
    linked = subprocess.run(
        ["ldd", program, *programs, *modules], capture_output=True, text=True, check=False
    ).stdout
    needed = {path for path in re.findall(r"(/\S+\.so\S*)", linked) if not path.startswith(library)}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        archive.add(program, _PYTHON)
        for other in programs:
            archive.add(other)
        archive.add(library, library, filter=lambda one: None if "__pycache__" in one.name else one)
        for path in sorted(needed - {found for found in needed if found.endswith(":")}):
            archive.add(path, path if path.startswith("/usr/") else f"/usr{path}")
    return content.getvalue()
