"""Blocking calls in threads: what becomes of the queue, and of threads that cannot be had."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cloister.gateway.offload import Offload


def test_a_call_that_waits_too_long_is_never_made() -> None:
    called: list[int] = []
    gate = threading.Event()

    async def main() -> None:
        offload = Offload(1, wait_s=0.05)
        first = asyncio.create_task(offload.call(lambda: gate.wait(10)))
        await asyncio.sleep(0)
        late = [asyncio.create_task(offload.call(lambda: called.append(1))) for _ in range(50)]
        outcomes = await asyncio.gather(*late, return_exceptions=True)
        assert all(isinstance(outcome, TimeoutError) for outcome in outcomes)
        gate.set()
        assert await first
        await offload.call(lambda: called.append(2))

    asyncio.run(main())
    assert called == [2]


def test_a_thread_that_cannot_start_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        offload = Offload(1)
        with monkeypatch.context() as poor:

            def fail(_: threading.Thread) -> None:
                raise RuntimeError("can't start new thread")

            poor.setattr(threading.Thread, "start", fail)
            for _ in range(3):
                with pytest.raises(OSError, match="no more threads"):
                    await offload.call(lambda: 1)
        return await offload.call(lambda: 7)

    assert asyncio.run(main()) == 7
