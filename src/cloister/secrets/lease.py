"""A credential's value for as long as it holds: fetched when it is needed, by one at a time, anew before it ends.

Rule 1: single flight: whoever needs the value meanwhile waits for the same fetch, and giving up does not end it.
Rule 2: a source that fails is left alone for a while, longer each time, and so is one whose values an upstream refuses
        again and again: an agent's retries do not become ours.
Rule 3: a value is renewed ahead of its end, in the background, while the old one still serves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from cloister.errors import CredentialError
from cloister.secrets.source import Value

AHEAD_S = 300.0  # before the end, or a fifth of the life if that is less
_MARGIN_S = 5.0  # a request takes its time to arrive; a fiftieth of the life if that is less
_BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_FRESH_S = 60.0  # a value that is refused sooner: the next one will hardly please more

Clock = Callable[[], float]


class _BackOff:
    """When something may be tried again."""

    def __init__(self, monotonic: Clock) -> None:
        self._monotonic = monotonic
        self._count = 0
        self._not_before = float("-inf")

    def left_s(self) -> float:
        return max(0.0, self._not_before - self._monotonic())

    def grow(self) -> None:
        self._not_before = self._monotonic() + _BACK_OFF_S[min(self._count, len(_BACK_OFF_S) - 1)]
        self._count += 1

    def reset(self) -> None:
        self._count, self._not_before = 0, float("-inf")


class Lease:
    """One credential's. `clock` gives seconds of the epoch: expiry is told in them."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Value]],
        *,
        name: str,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
        on_value: Callable[[Value], None],
    ) -> None:
        self._fetch = fetch
        self._name = name
        self._clock = clock
        self._monotonic = monotonic
        self._on_value = on_value
        self._value: Value | None = None
        self._fetched_at = 0.0
        self._age_from = float("-inf")  # as `_fetched_at`, on the monotonic clock
        self._task: asyncio.Task[Value] | None = None
        self._failing = _BackOff(monotonic)
        self._refused = _BackOff(monotonic)
        self.failure: CredentialError | None = None

    @property
    def value(self) -> Value | None:
        """The value, if there is one that has not ended."""
        value = self._value
        return None if value is None or self._left_s(value) <= self._share(value, _MARGIN_S, 50) else value

    @property
    def expires_at(self) -> float | None:
        """When the last value ends, or has ended."""
        return None if self._value is None else self._value.expires_at

    @property
    def fetching(self) -> bool:
        """Whether its source is being asked."""
        return self._task is not None

    async def get(self) -> Value:
        """A value that holds. CredentialError."""
        value = self.value
        if value is None:
            return await self._fetched()
        due = self._left_s(value) <= self._share(value, AHEAD_S, 5)
        if due and self._task is None and not self._failing.left_s():
            self._begin()  # the old one serves until this is there
        return value

    async def renew(self, refused: Value) -> Value | None:
        """Another value than the one that was refused; None if there is none."""
        if self._value is not None and self._value is not refused:
            return self.value  # somebody else's request was refused before
        if self._task is None:
            if self._monotonic() - self._age_from > _FRESH_S:
                self._refused.reset()
            if self._refused.left_s():
                return None
            self._refused.grow()
        try:
            newer = await self._fetched()
        except CredentialError:
            return None
        return None if newer is refused or _same(newer, refused) else newer

    async def _fetched(self) -> Value:
        if self._task is None:
            left_s = self._failing.left_s()
            if self.failure is not None and left_s:
                raise _again(self.failure, left_s)
            self._begin()
        task = self._task
        if task is None:
            raise CredentialError(f'credential "{self._name}" cannot be had')
        return await asyncio.shield(task)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(_heard)

    async def _run(self) -> Value:
        try:
            value = await self._fetch()
            if value.expires_at is not None and value.expires_at <= self._clock():
                raise CredentialError(
                    f'credential "{self._name}": its source gave a value that has expired already',
                    resolution=f"renew it, then try: cloister secret test {self._name}",
                )
        except CredentialError as error:
            self.failure = error
            self._failing.grow()
            raise
        else:
            self._failing.reset()
            self.failure = None
            self._keep(value)
            return value
        finally:
            self._task = None

    def _keep(self, value: Value) -> None:
        self._value, self._fetched_at, self._age_from = value, self._clock(), self._monotonic()
        self._on_value(value)

    def _left_s(self, value: Value) -> float:
        return float("inf") if value.expires_at is None else value.expires_at - self._clock()

    def _share(self, value: Value, most_s: float, part: int) -> float:
        """`most_s`, or the given part of the value's life if that is less."""
        return 0.0 if value.expires_at is None else min(most_s, (value.expires_at - self._fetched_at) / part)


def _same(one: Value, other: Value) -> bool:
    return one.secret.reveal() == other.secret.reveal()


def _again(failure: CredentialError, left_s: float) -> CredentialError:
    """The same failure, for somebody who asks too early: an exception is raised once."""
    return CredentialError(
        f"{failure.brief}; it is tried again in {left_s:.0f} s" if left_s >= 1 else failure.brief,
        details=failure.details,
        resolution=failure.resolution,
    )


def _heard(task: asyncio.Task[Value]) -> None:
    """A failure in the background is told to whoever asks next."""
    if not task.cancelled():
        task.exception()
