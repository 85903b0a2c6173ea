"""The image that the holder runs in: what is in it, and that it names what went in."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.runtimes import oci_runtime


@pytest.fixture(scope="module")
def contents() -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(oci_runtime.archive())) as tar:
        return {f"/{member.name}": member for member in tar}


def test_it_holds_what_the_tag_is_made_of(contents: dict[str, tarfile.TarInfo]) -> None:
    """OWN_MODULES is written down because a start must not look; here it is looked."""
    prefix = f"{oci_runtime.PACKAGE}/cloister/"
    ours = {
        name.removeprefix(prefix)[:-1]
        for name in contents
        if name.startswith(prefix) and name.endswith(".pyc")
    }
    assert ours == set(oci_runtime.OWN_MODULES)


def test_the_gateways_image_is_named_by_all_that_is_in_it() -> None:
    """Its key reads whole packages; what it holds of ours is among them, and nothing of the front ends'."""
    with tarfile.open(fileobj=io.BytesIO(oci_runtime.archive(oci_runtime.GATEWAY))) as tar:
        names = [f"/{member.name}" for member in tar]
    prefix = f"{oci_runtime.PACKAGE}/cloister/"
    ours = {
        name.removeprefix(prefix)[:-1] for name in names if name.startswith(prefix) and name.endswith(".pyc")
    }
    assert ours <= set(oci_runtime._all_of_gateway())
    assert {
        "outpost/main.py",
        "gateway/http/h2_client.py",
        "network/holder.py",
        "runtimes/oci_holder.py",
    } <= ours
    assert not {name.partition("/")[0] for name in ours} & {"cli", "session", "config", "sandbox", "services"}
    assert not [
        name for name in ours if name in ("outpost/near.py", "outpost/errands.py", "secrets/program.py")
    ]
    assert set(oci_runtime.OWN_MODULES) <= ours, "the holder runs in it too"
    assert "/etc/nsswitch.conf" in names


# What the gateway's modules import only on the host, or where they find it.
NOT_IN_A_CONTAINER = {
    "_sha2", "_sha256", "botocore", "botocore.awsrequest", "botocore.credentials", "cloister.gateway.ssh",
    "cloister.gateway.truststore", "cloister.secrets.aws", "cloister.system.proc", "difflib", "importlib.util", "pwd", "shutil", "tarfile",
}  # fmt: skip


def test_what_the_gateway_imports_late_is_in_its_image() -> None:
    """A name that is no pin, an answer in Brotli: what is loaded when it is first needed must be there then."""
    found = oci_runtime._look(os.path.realpath(sys.executable), oci_runtime.GATEWAY)["modules"]
    assert isinstance(found, dict)
    wanted = {
        (module, name)
        for module, path in found.items()
        if module.startswith("cloister.") and str(path).endswith(".py")
        for name in late_imports(Path(str(path)))
    }
    assert ("cloister.gateway.upstream", "cloister.policy.address") in wanted
    builtin = {*sys.builtin_module_names, "__future__"}
    assert {
        pair for pair in wanted if pair[1] not in found and pair[1] not in NOT_IN_A_CONTAINER | builtin
    } == set()


def late_imports(path: Path) -> Iterator[str]:
    package = Path(oci_runtime.__file__).parents[2]
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for one in ast.walk(function):
            if isinstance(one, ast.Import):
                yield from (alias.name for alias in one.names)
            elif isinstance(one, ast.ImportFrom) and one.module:
                yield one.module
                below = package.joinpath(*one.module.split("."))
                yield from (
                    f"{one.module}.{alias.name}"
                    for alias in one.names
                    if (below / f"{alias.name}.py").exists()
                )


def test_it_holds_one_program_and_nothing_set_user_id(contents: dict[str, tarfile.TarInfo]) -> None:
    programs = [name for name, member in contents.items() if member.isreg() and "/bin/" in name]
    assert programs == [os.path.realpath(sys.executable)]
    assert not [name for name, member in contents.items() if member.mode & 0o7022]
    assert not [name for name in contents if name.endswith((".py", "/sh"))]


def test_the_same_image_twice(tmp_path: Path) -> None:
    assert oci_runtime.archive() == oci_runtime.archive()
    first = oci_runtime.runtime(str(tmp_path))
    assert first == oci_runtime.runtime(str(tmp_path))  # the second from what was stored
    assert first.tag.startswith("cloister-runtime:")


def test_the_loader_of_a_program() -> None:
    program = Path(os.path.realpath(sys.executable)).read_bytes()
    assert oci_runtime.interpreter(program).startswith("/lib")
    assert oci_runtime.interpreter(b"#!/bin/sh\n") == ""


def test_its_modules_load_without_their_sources(tmp_path: Path) -> None:
    """In this interpreter, from the unpacked package alone."""
    with tarfile.open(fileobj=io.BytesIO(oci_runtime.archive())) as tar:
        tar.extractall(tmp_path, [one for one in tar if one.name.startswith("cloister/")])
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'cloister')!r}); from cloister.network import holder; print(holder.SOCKET)"
    python = os.path.realpath(sys.executable)
    done = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "control.sock\n", done.stderr
