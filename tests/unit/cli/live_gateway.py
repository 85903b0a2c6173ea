"""A vault and its control socket, as a live sandbox's gateway has them, in a thread."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from cloister.config import directories
from cloister.config.compile import Overrides, compile_project
from cloister.gateway.control_server import ControlServer, answers
from cloister.gateway.offload import Offload
from cloister.gateway.vault import Vault
from cloister.policy.codec import parse_policy
from cloister.types import Credential


class LiveGateway:
    """Of the project in `workspace`; nobody answers its questions but `cloister approve`."""

    def __init__(self, workspace: Path, sandbox_id: str = "project-000001") -> None:
        project = directories.project(str(workspace), os.environ)
        os.makedirs(project.runs, exist_ok=True)
        self.path = Path(project.runs) / f"{sandbox_id}.sock"
        plan = compile_project(str(workspace), os.environ, Overrides())
        self._credentials = {one.name: one for one in parse_policy(plan["policy"]).credentials}
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))

    def __enter__(self) -> LiveGateway:
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the gateway does not serve")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(10)
        self._loop.close()

    def get(self, name: str) -> bytes:
        return self.begin(name).result(10)

    def begin(self, name: str) -> Future[bytes]:
        """Ask for a value, and return once the vault has been asked."""
        future = asyncio.run_coroutine_threadsafe(self._get(name), self._loop)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), self._loop).result(5)
        return future

    def decide(self, name: str, *, allowed: bool) -> None:
        self._loop.call_soon_threadsafe(lambda: self._vault.decide(name, allowed=allowed))

    async def _get(self, name: str) -> bytes:
        return (await self._vault.get(self._credentials[name], "host.example.com")).secret.reveal()

    async def _main(self) -> None:
        async def nobody(_: Credential, __: str) -> bool:
            await asyncio.Event().wait()
            return False

        self._vault = Vault(
            tuple(self._credentials.values()), offload=Offload(4), environ=os.environ, ask=nobody
        )
        server = ControlServer(str(self.path), answers(self._vault))
        server.start()
        self._ready.set()
        await self._ended.wait()
        self._vault.close()
        await server.close()
