"""Named volumes of an engine, and the way to the files in them: `docker cp` with a container that is never run.

Rule 1: each volume has a place of its own in that container (`place`), so nothing that an agent left in one decides
        where another is mounted.
Rule 2: what comes out is the sandbox's: it is passed on as a stream, and `workspaces/archive.py` judges it.
Rule 3: the container goes when it has served; a killed command's is removed by the next, which knows its name.
"""

from __future__ import annotations

import errno
import io
import time
from contextlib import suppress

from cloister.errors import CloisterError
from cloister.runtimes import oci_argv, oci_failures
from cloister.system import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import BinaryIO, Self

    from cloister.runtimes.engine import Engine

NAME = "files"  # the directory at a volume's place, and in front of every name in a stream
_CHUNK_BYTES = 1 << 18
_END_S = 120.0
_PROGRESS_S = 10.0


def place(kind: str) -> str:
    """Where a volume is in that container."""
    return f"/cloister/{kind}/{NAME}"


def make(engine: Engine, name: str, *, sandbox: str = "", project: str) -> None:
    """Make a volume; one of that name stays as it is. HostError."""
    _must(engine, oci_argv.create_volume(name, sandbox=sandbox, project=project), "make a volume")


def mountpoint(engine: Engine, name: str) -> str | None:
    """The directory of a volume on the engine's machine; None if there is no such volume. HostError."""
    done = engine.ask("volume", "inspect", "--format={{.Mountpoint}}", name)
    said = done.errors.decode(errors="replace")
    if done.code and "no such volume" in said.lower():
        return None
    if done.code:
        raise oci_failures.failure(engine.name, f"look at the volume {name!r}", said)
    return done.output.decode(errors="surrogateescape").rstrip("\n")


def remove(engine: Engine, *names: str) -> None:
    """Remove volumes. Idempotent. HostError."""
    _must(engine, ["volume", "rm", "--force", *names], "remove a volume")


def remove_container(engine: Engine, name: str) -> None:
    """Remove a container that does not run. Idempotent. HostError."""
    done = engine.ask("rm", "--force", name)
    said = done.errors.decode(errors="replace")
    if done.code and not oci_failures.is_missing_container(said):
        raise oci_failures.failure(engine.name, "remove a container", said)


class Filler:
    """A container that is made, never run, and removed: `transfer.Access` to the volumes that it has."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        *,
        project: str,
        image: str,
        volumes: Mapping[str, str],
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`volumes`: kind (see `place`) to name. `tell` hears how far a long `store` is."""
        self._engine, self._name, self._project, self._image, self._tell = engine, name, project, image, tell
        self._volumes = {place(kind): volume for kind, volume in volumes.items()}

    def __enter__(self) -> Self:
        remove_container(self._engine, self._name)
        _must(
            self._engine,
            oci_argv.create_filler(self._name, self._project, self._image, self._volumes),
            "make a container to pass files",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(CloisterError):  # it is a name that the next one removes, and no error of what was done
            remove_container(self._engine, self._name)

    def export(self, path: str) -> BinaryIO:
        """A tar stream of `path`, its last component in front of every name. HostError while it is read."""
        return io.BufferedReader(_Exported(self._engine, self._name, path), _CHUNK_BYTES)

    def store(self, directory: str, stream: BinaryIO) -> None:
        """Unpack a tar stream in `directory`. HostError."""
        child = proc.converse(
            self._engine.argv(["cp", "-", f"{self._name}:{directory}"]), environment=self._engine.environment
        )
        sent, told = 0, time.monotonic()
        try:
            with suppress(BrokenPipeError):  # it says why below
                while data := stream.read(_CHUNK_BYTES):
                    _write(child, data)
                    sent += len(data)
                    if time.monotonic() - told > _PROGRESS_S:
                        told = time.monotonic()
                        self._tell(f"sent {sent >> 20} MiB to the {self._engine.name} engine")
            done = proc.finish(child, timeout_s=_END_S)
        finally:
            child.kill()
            child.wait()
        if done.code:
            raise _failure(self._engine, "take the sandbox's files", done.errors, directory)


class _Exported(io.RawIOBase):
    """What `docker cp` writes. Its end is one only if the client has ended well."""

    def __init__(self, engine: Engine, container: str, path: str) -> None:
        super().__init__()
        self._engine, self._path = engine, path
        argv = engine.argv(["cp", f"{container}:{path}", "-"])
        self._child = proc.begin(argv, environment=engine.environment)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has a wider buffer
        output = self._child.stdout
        if output is None:
            return 0
        count = output.readinto(buffer)  # type: ignore[attr-defined]  # a BufferedReader
        if not count:
            self._end()
        return int(count)

    def close(self) -> None:
        if not self.closed:
            self._child.kill()
            self._child.communicate()
        super().close()

    def _end(self) -> None:
        errors = self._child.stderr.read() if self._child.stderr is not None else b""
        if proc.reap(self._child, timeout_s=_END_S):
            raise _failure(self._engine, "give the sandbox's files back", errors, self._path)


def _write(child: subprocess.Popen[bytes], data: bytes) -> None:
    if child.stdin is None:
        raise TypeError("not a conversation")
    view = memoryview(data)
    while view:  # a raw pipe may take less
        view = view[child.stdin.write(view) :]


def _failure(engine: Engine, doing: str, errors: bytes, path: str) -> Exception:
    """FileNotFoundError where there is nothing at `path`; else what the engine says."""
    said = errors.decode(errors="replace")
    if oci_failures.is_missing_path(said):
        return FileNotFoundError(errno.ENOENT, "there is no such file", path)
    return oci_failures.failure(engine.name, doing, said)


def _must(engine: Engine, arguments: list[str], doing: str) -> None:
    done = engine.ask(*arguments)
    if done.code:
        raise oci_failures.failure(engine.name, doing, done.errors.decode(errors="replace"))
