"""Leases: expiry, refresh ahead of time, single flight, back-off, renewal after a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cloister.errors import CredentialError
from cloister.secret import Secret
from cloister.secrets.lease import Lease
from cloister.secrets.source import Value


class Fake:
    """A source and two clocks, all driven by the test."""

    def __init__(self, life_s: float | None = None) -> None:
        self.now = 1_000_000.0
        self.count = 0
        self.life_s = life_s
        self.fail = False
        self.same = False
        self.gate: asyncio.Event | None = None
        self.seen: list[Value] = []
        self.lease = Lease(
            self.fetch, name="x", clock=self.clock, monotonic=self.clock, on_value=self.seen.append
        )

    def clock(self) -> float:
        return self.now

    async def fetch(self) -> Value:
        self.count += 1
        number = 1 if self.same else self.count
        if self.gate is not None:
            await self.gate.wait()
        if self.fail:
            raise CredentialError("no value today", details="why", resolution="wait")
        expires_at = None if self.life_s is None else self.now + self.life_s
        return Value(secret=Secret("x", b"value %d" % number), expires_at=expires_at)

    async def text(self) -> bytes:
        return (await self.lease.get()).secret.reveal()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), 10)

    asyncio.run(main())


def test_a_value_without_end_is_fetched_once() -> None:
    async def test() -> None:
        fake = Fake()
        assert await fake.text() == b"value 1"
        fake.now += 1e6
        assert await fake.text() == b"value 1"
        assert fake.count == len(fake.seen) == 1

    run(test)


def test_many_wait_for_one_fetch_and_giving_up_does_not_end_it() -> None:
    async def test() -> None:
        fake = Fake()
        fake.gate = asyncio.Event()
        waiting = [asyncio.create_task(fake.text()) for _ in range(50)]
        await settle()
        waiting[0].cancel()
        await settle()
        fake.gate.set()
        assert set(await asyncio.gather(*waiting[1:])) == {b"value 1"}
        assert waiting[0].cancelled()
        assert fake.count == 1

    run(test)


@pytest.mark.parametrize(("life_s", "quiet_s"), [(3600.0, 3299.0), (100.0, 79.0), (43200.0, 42899.0)])
def test_it_is_renewed_ahead_of_its_end_in_the_background(life_s: float, quiet_s: float) -> None:
    async def test() -> None:
        fake = Fake(life_s)
        assert await fake.text() == b"value 1"
        fake.now += quiet_s
        await fake.text()
        await settle()
        assert fake.count == 1, "not yet"
        fake.now += 2
        fake.gate = asyncio.Event()
        assert await fake.text() == b"value 1", "the old one serves"
        await settle()
        assert await fake.text() == b"value 1"
        await settle()
        assert fake.count == 2
        fake.gate.set()
        await settle()
        assert await fake.text() == b"value 2"
        assert fake.count == 2

    run(test)


def test_what_has_ended_is_never_handed_out() -> None:
    async def test() -> None:
        fake = Fake(3600.0)
        await fake.text()
        fake.now += 3600.0 - 4  # about to end: it would end on its way
        assert fake.lease.value is None
        assert await fake.text() == b"value 2"
        fake.now += 7200
        fake.fail = True
        with pytest.raises(CredentialError, match="no value today"):
            await fake.text()

    run(test)


def test_a_source_that_gives_what_has_ended_is_an_error() -> None:
    async def test() -> None:
        fake = Fake(-1.0)
        with pytest.raises(CredentialError, match='credential "x": its source gave a value that has expired'):
            await fake.text()
        assert not fake.seen

    run(test)


def test_a_failing_source_is_not_hammered() -> None:
    async def test() -> None:
        fake = Fake()
        fake.fail = True
        start = fake.now
        attempts = []
        for _ in range(240):  # a request every half second, for two minutes
            before = fake.count
            with pytest.raises(CredentialError, match="no value today") as caught:
                await fake.text()
            assert caught.value.details == "why"
            if fake.count > before:
                attempts.append(fake.now - start)
            fake.now += 0.5
        assert attempts == [0, 1, 3, 7, 15, 31, 61, 91]
        fake.fail = False
        fake.now += 31
        assert await fake.text() == b"value %d" % fake.count
        assert fake.lease.failure is None

    run(test)


def test_a_refresh_that_fails_leaves_the_old_value_until_its_end() -> None:
    async def test() -> None:
        fake = Fake(1000.0)
        await fake.text()
        fake.fail = True
        fake.now += 850
        for _ in range(20):
            assert await fake.text() == b"value 1"
            await settle()
        assert fake.count == 2, "and it is not asked at every request"
        fake.now += 30
        fake.fail = False
        assert await fake.text() == b"value 1"
        await settle()
        assert await fake.text() == b"value 3"

    run(test)


def test_a_refused_value_is_renewed_once_for_all() -> None:
    async def test() -> None:
        fake = Fake()
        refused = await fake.lease.get()
        fake.now += 10
        fake.gate = asyncio.Event()
        renewals = [asyncio.create_task(fake.lease.renew(refused)) for _ in range(20)]
        await settle()
        fake.gate.set()
        newer = await asyncio.gather(*renewals)
        assert fake.count == 2
        assert {value.secret.reveal() for value in newer if value} == {b"value 2"}
        late = await fake.lease.renew(refused)
        assert late is not None
        assert late.secret.reveal() == b"value 2", "somebody else has renewed it"
        assert fake.count == 2
        assert await fake.lease.renew(late) is None, "what refuses this one too will hardly take the next"
        assert fake.count == 2
        fake.now += 61
        assert await fake.lease.renew(late) is not None

    run(test)


def test_a_source_without_anything_newer_is_not_hammered() -> None:
    async def test() -> None:
        fake = Fake()
        fake.same = True
        for _ in range(600):  # an agent retries ten times a second, for a minute; all are refused
            value = await fake.lease.get()
            assert await fake.lease.renew(value) is None
            fake.now += 0.1
        assert fake.count <= 8
        fake.same = False
        fake.now += 31
        newer = await fake.lease.renew(await fake.lease.get())
        assert newer is not None

    run(test)


def test_endless_refusals_do_not_become_ours() -> None:
    """A request that is never allowed, by a source that has a new token each time: a GitHub App's, for one."""

    async def test() -> None:
        fake = Fake()
        renewed = 0
        for _ in range(600):
            renewed += await fake.lease.renew(await fake.lease.get()) is not None
            fake.now += 0.1
        assert 1 <= renewed <= 7
        assert fake.count == renewed + 1

    run(test)


def test_a_renewal_that_fails_is_no_error() -> None:
    async def test() -> None:
        fake = Fake()
        value = await fake.lease.get()
        fake.now += 10
        fake.fail = True
        assert await fake.lease.renew(value) is None
        assert await fake.text() == b"value 1"

    run(test)
