"""The sandbox environment that inspect-ai calls, on cloister's command line.

Rule 1: cloister runs as this interpreter's own, from a directory that no agent writes, with nothing of it on the path.
Rule 2: a command that is out of time or cancelled ends with all that it has started, and nothing waits for that.
Rule 3: there is no other user than the agent's.
"""

from __future__ import annotations

import logging
import os
import posixpath
import shlex
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, overload

import anyio
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    sandboxenv,
    subprocess,
)
from pydantic import BaseModel

from cloister.inspect_sandbox import place, programs, settings
from cloister.system import files

_OUR_FAULT = 125  # cloister's own errors (errors.py)
_NOT_EXECUTABLE = 126
_TRANSFER_TIMEOUT_S = 180
_END_TIMEOUT_S = 60
_SAYS = "cloister: "
logger = logging.getLogger(__name__)


@sandboxenv(name="cloister")
class CloisterSandboxEnvironment(SandboxEnvironment):
    """One sample's sandbox."""

    def __init__(self, where: place.Place) -> None:
        super().__init__()
        self._place = where
        self._users: frozenset[str] = frozenset()

    @classmethod
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        """Refuse a configuration that cannot be read before any sample starts."""
        _read(config)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Start a sandbox. RuntimeError, with cloister's words, if it does not."""
        wanted, text = _read(config)
        where = place.make(text, os.environ)
        try:
            # What has begun to start is waited for: only then can it be removed.
            with anyio.CancelScope(shield=True):
                started = await _cloister(where, ["up", "-C", where.workspace, *settings.arguments(wanted)])
            await anyio.lowlevel.checkpoint()
            if not started.success:
                raise RuntimeError(f"the sandbox does not start: {_words(started)}")
        except BaseException:
            await _remove(where)
            raise
        return {"default": cls(where)}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Remove it, also after an interruption."""
        for one in environments.values():
            await _remove(one.as_type(cls)._place)

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:
        """`inspect sandbox cleanup cloister [NAME]`: what evaluations have left that were killed."""
        for where in list(place.left()):
            if id in (None, where.name):
                logger.info("removing %s", where.base)
                await _remove(where)

    @classmethod
    def config_files(cls) -> list[str]:
        """A task that has one beside it means it."""
        return ["cloister.toml"]

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:  # Any: inspect's own
        """From a log: the sandbox of a task that is run again."""
        return settings.CloisterConfig(**config)

    def default_polling_interval(self) -> float:
        """Seconds: a command of a sandbox on this machine takes a tenth."""
        return 0.2

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,  # noqa: ARG002 - a command that has had an effect is not repeated
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a command there; its output as text, the last of it if it is more than the limit."""
        await self._check_user(user)
        done = await self._run(
            cmd,
            input=input,
            directory=cwd,
            variables=env or {},
            timeout_s=timeout,
            limit_bytes=SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE,
            concurrency=concurrency,
        )
        if done.returncode == _NOT_EXECUTABLE and done.stderr.startswith(_SAYS.encode()):
            raise PermissionError(_words(done))
        return ExecResult(
            success=done.success,
            returncode=done.returncode,
            stdout=done.stdout.decode(errors="replace"),
            stderr=done.stderr.decode(errors="replace"),
        )

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file, and its directories where they are missing."""
        path = self._path(file)
        data = contents.encode() if isinstance(contents, str) else contents
        done = await self._run(programs.writing(path), input=data, timeout_s=_TRANSFER_TIMEOUT_S)
        failure = programs.failure(done.returncode, done.stderr.decode(errors="replace"), path)
        if failure is not None:
            raise failure

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """The whole file, newlines as they are. UnicodeDecodeError, or OutputLimitExceededError, if it is not."""
        path = self._path(file)
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        done = await self._run(
            programs.reading(path, most_bytes=limit + 1),
            timeout_s=_TRANSFER_TIMEOUT_S,
            limit_bytes=limit + 1,
        )
        failure = programs.failure(done.returncode, done.stderr.decode(errors="replace"), path)
        if failure is not None:
            raise failure
        if len(done.stdout) > limit:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        contents: bytes = done.stdout
        return contents.decode() if text else contents

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """A shell there. ConnectionError if it does not run."""
        if not self._place.lives():
            raise ConnectionError(f"the sandbox of {self._place.workspace!r} does not run")
        await self._check_user(user)
        argv = [sys.executable, "-P", "-m", "cloister", "shell", "-C", self._place.workspace]
        return SandboxConnection(type="cloister", command=shlex.join(argv))

    def _path(self, file: str) -> str:
        return posixpath.join(self._place.workspace, file)

    async def _check_user(self, user: str | None) -> None:
        if user is None or user in self._users:
            return
        if not self._users:
            done = await self._run(["/bin/sh", "-c", "id -u; id -un"])
            self._users = frozenset(done.stdout.decode(errors="replace").split())
        if user not in self._users:
            known = " or ".join(sorted(self._users))
            raise SandboxUserUnsupportedError(
                f"a cloister sandbox has one user, without privileges ({known}): nothing runs as {user!r} there"
            )

    async def _run(
        self,
        command: list[str],
        *,
        input: str | bytes | None = None,
        directory: str | None = None,
        variables: Mapping[str, str] | None = None,
        timeout_s: int | None = None,
        limit_bytes: int | None = None,
        concurrency: bool = True,
    ) -> ExecResult[bytes]:
        """Run it, and end all of it if it takes longer or is cancelled. TimeoutError, SandboxUnavailableError."""
        mark = uuid.uuid4().hex
        late = False

        async def guard() -> None:
            nonlocal late
            try:
                await anyio.sleep(float("inf") if timeout_s is None else timeout_s)
                late = True
            finally:
                if not finished:
                    await self._end(mark)

        finished = False
        with _environment_file({**(variables or {}), programs.MARK: mark}) as environment:
            arguments = [
                "-C",
                self._place.workspace,
                "-w",
                self._path(directory or ""),
                "--env-from",
                environment,
            ]
            async with anyio.create_task_group() as group:
                group.start_soon(guard)
                try:
                    done = await _cloister(
                        self._place,
                        ["exec", *arguments, "--", *command],
                        input=input,
                        limit_bytes=limit_bytes,
                        concurrency=concurrency,
                    )
                    finished = True
                finally:
                    group.cancel_scope.cancel()
        if late:
            error = TimeoutError(f"the command was ended after {timeout_s} s")
            error.truncated_output = (done.stdout + done.stderr).decode(errors="replace")  # type: ignore[attr-defined]  # inspect looks for it
            raise error
        if done.returncode == _OUR_FAULT and not self._place.lives():
            raise SandboxUnavailableError(_words(done))
        return done

    async def _end(self, mark: str) -> None:
        with anyio.CancelScope(shield=True):
            arguments = ["exec", "-C", self._place.workspace, "--", *programs.ending(mark)]
            await _cloister(self._place, arguments, concurrency=False, timeout_s=_END_TIMEOUT_S)


def _read(config: SandboxEnvironmentConfigType | None) -> tuple[settings.CloisterConfig, str | None]:
    """The options of a task's sandbox, and the text of its cloister.toml."""
    if config is None:
        return settings.CloisterConfig(), None
    if isinstance(config, settings.CloisterConfig):
        return config, None
    if not isinstance(config, str):
        raise ValueError(
            f"a cloister sandbox is configured by a cloister.toml or a CloisterConfig, not by {type(config).__name__}"
        )
    text = files.read_text(config)
    if text is None:
        raise FileNotFoundError(
            f"there is no {config!r}, which the task names as its sandbox's configuration"
        )
    return settings.OF_THE_FILE, text


async def _remove(where: place.Place) -> None:
    """End it, and remove all of it, whatever is cancelled."""
    with anyio.CancelScope(shield=True):
        done = await _cloister(
            where, ["rm", "-C", where.workspace, "--force", "--volumes"], concurrency=False
        )
        if where.lives():
            logger.warning("the sandbox of %s could not be removed: %s", where.workspace, _words(done))
            return
        await anyio.to_thread.run_sync(where.remove)


async def _cloister(
    where: place.Place,
    arguments: list[str],
    *,
    input: str | bytes | None = None,
    limit_bytes: int | None = None,
    timeout_s: int | None = None,
    concurrency: bool = True,
) -> ExecResult[bytes]:
    return await subprocess(
        [sys.executable, "-P", "-m", "cloister", *arguments],
        text=False,
        input=input,
        cwd="/",
        env=where.environment(),
        output_limit=limit_bytes,
        timeout=timeout_s,
        concurrency=concurrency,
    )


@contextmanager
def _environment_file(variables: Mapping[str, str]) -> Iterator[str]:
    """Variables in a file of this process's: no argument shows them, and nothing is left of it."""
    descriptor = os.memfd_create("cloister-environment")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(b"".join(f"{name}={value}\0".encode() for name, value in variables.items()))
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _words(done: ExecResult[bytes]) -> str:
    return done.stderr.decode(errors="replace").removeprefix(_SAYS).strip() or f"exit code {done.returncode}"
