"""Find the image that others are built on: one of the engine's, one of a registry, or a root file system on disk.

Rule 1: what a name stands for is pinned before it is used: by digest where a registry has one, else by the id.
Rule 2: what is a path is told by its form alone.
Rule 3: a root file system is imported once, under the hash of its bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from cloister.errors import HostError, UsageError
from cloister.images.engine import Engine, image_digests, image_id, image_platform
from cloister.images.render import HASH_DIGITS, REPOSITORY
from cloister.system import proc

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst")
_PULL_S = 1800.0
_IMPORT_S = 900.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A reference that a Containerfile can name, and what identifies its content."""

    reference: str
    identity: str


def resolve(engine: Engine, text: str, *, platform: str, hear: Callable[[str], None]) -> Base:
    """What `--base` names. `hear` gets what the engine says while it fetches."""
    # Never by looking whether there is such a directory here: the project's files are an agent's.
    if text.startswith(("/", "./", "../", "~/")) or text.endswith(_ARCHIVES):
        return _imported(engine, os.path.abspath(os.path.expanduser(text)), hear)
    if not _REFERENCE.fullmatch(text):
        raise UsageError(
            f"--base: {text!r} names no image",
            details="expected: an image, as in debian:bookworm-slim, or the path of a root file system: "
            "a directory, or a tar",
        )
    # The engine's copy may be that of another platform: a registry knows more.
    if image_platform(engine, text) != (platform or engine.platform):
        _pull(engine, text, platform, hear)
    found = image_id(engine, text)
    if found is None:
        raise _missing(engine, text, "")
    digests = image_digests(engine, text) if "@" not in text else ()
    pinned = [one for one in digests if not one.startswith("localhost/")]
    return Base(reference=pinned[0] if pinned else text, identity=found)


def _pull(engine: Engine, reference: str, platform: str, hear: Callable[[str], None]) -> None:
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        hear(line)

    chosen = ["--platform", platform] if platform else []
    if engine.follow(["pull", *chosen, reference], timeout_s=_PULL_S, hear=keep) != 0:
        raise _missing(engine, reference, "\n".join(line for line in lines[-3:] if line))


def _missing(engine: Engine, reference: str, details: str) -> HostError:
    return HostError(
        f"there is no base image {reference!r} here, and it cannot be fetched",
        details=details,
        resolution=f"see which there are: {engine.name} image ls; or give a root file system: "
        "mmdebstrap bookworm root.tar && cloister image build --base ./root.tar",
    )


def _imported(engine: Engine, path: str, hear: Callable[[str], None]) -> Base:
    if not os.path.exists(path):
        raise UsageError(
            f"--base: {path!r} does not exist", resolution="make one: mmdebstrap bookworm root.tar"
        )
    with tempfile.TemporaryDirectory(prefix="cloister-base-") as directory:
        archive = _packed(path, directory) if os.path.isdir(path) else path
        reference = f"{REPOSITORY}/root:{_digest(archive)}"
        if (found := image_id(engine, reference)) is None:
            hear(f"importing {path}")
            done = engine.ask("import", archive, reference, timeout_s=_IMPORT_S)
            found = image_id(engine, reference)
            if done.code != 0 or found is None:
                raise HostError(
                    f"{path!r} cannot be imported as an image",
                    details=done.errors.decode(errors="replace").strip(),
                    resolution="it must be the root directory of a Debian or Ubuntu, or a tar of it",
                )
    return Base(reference=reference, identity=found)


def _packed(root: str, directory: str) -> str:
    """A tar of a directory: the same bytes for the same files."""
    if not os.path.isdir(os.path.join(root, "usr")):
        raise UsageError(
            f"--base: {root!r} is no root directory of a system: it has no usr",
            resolution="make one: mmdebstrap bookworm root.tar",
        )
    archive = os.path.join(directory, "root.tar")
    left_out = [f"--exclude=./{name}/*" for name in ("dev", "proc", "sys", "run")]
    argv = ["tar", "--create", "--file", archive, "--directory", root, "--numeric-owner", "--sort=name"]
    done = proc.run([*argv, "--one-file-system", *left_out, "."], timeout_s=_IMPORT_S)
    if done.code != 0:
        raise HostError(
            f"{root!r} cannot be read as a whole",
            details="\n".join(done.errors.decode(errors="replace").splitlines()[-3:]),
            resolution="make a tar of it as the user whom it belongs to, and give that: --base ./root.tar",
        )
    return archive


def _digest(path: str) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()[:HASH_DIGITS]
