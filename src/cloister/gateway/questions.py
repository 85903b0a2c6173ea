"""Questions to the user that wait for an answer, from wherever it comes: the session's terminal or another command.

Rule 1: the first answer counts; a question that nobody answers in time is settled by whoever asked it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cloister.types import Credential


class Questions:
    """One question for each credential at a time. `put` shows it, `settled` (name, allowed) takes it away."""

    def __init__(self, put: Callable[[Credential, str], None], settled: Callable[[str, bool], None]) -> None:
        self._put = put
        self._settled = settled
        self._waiting: dict[str, tuple[asyncio.Future[bool], str]] = {}

    async def ask(self, credential: Credential, host: str) -> bool:
        """Wait for the answer."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[credential.name] = (future, host)
        self._put(credential, host)
        allowed = False
        try:
            allowed = await future
        finally:
            self._waiting.pop(credential.name, None)
            self._settled(credential.name, allowed)
        return allowed

    def answer(self, name: str, *, allowed: bool) -> bool:
        """False if nobody waits for it."""
        waiting = self._waiting.get(name)
        if waiting is None or waiting[0].done():
            return False
        waiting[0].set_result(allowed)
        return True

    def waiting(self) -> dict[str, str]:
        """The host of each question that waits, by the credential's name."""
        return {name: host for name, (_, host) in self._waiting.items()}
