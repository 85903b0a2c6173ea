"""The credentials of one sandbox: their values, fetched when a request needs them, and never anywhere else.

Rule 1: values are in this process's memory only.
Rule 2: whatever has been handed out is known for as long as it may be echoed (`known`): the last KNOWN_LIMIT values of
        each credential, with their confidential parts. A value is known before it is handed out.
Rule 3: a credential with `confirm` is used after the user has said so. One question at a time for each, however many
        requests wait; no answer in time is a no. What was said counts until the sandbox ends, or until the user says
        otherwise (`decide`); the sandbox cannot make us ask twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cloister.errors import CredentialError
from cloister.gateway.fetch import Fetch, Fetcher, Tell
from cloister.gateway.offload import Offload
from cloister.secret import Secret
from cloister.secrets.lease import Clock, Lease
from cloister.secrets.source import DEADLINE_S, Value
from cloister.types import Credential

CONFIRM_S = 120.0
KNOWN_LIMIT = 8  # values of each credential

Ask = Callable[[Credential, str], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A question that nobody has answered."""

    name: str
    host: str
    since: float  # of the epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How it stands with a credential. `word` is for people, `reason` says why it is refused or fails."""

    name: str
    word: str
    expires_at: float | None = None
    reason: str = ""


class Vault:
    """All of a sandbox's credentials.

    `ask` puts the question of Rule 3 (a credential, a host) and gives the answer; it is cancelled when the answer has
    come by `decide`, or too late. `tell` gets what the user should read: details that are not for the sandbox.
    `untrusted` are the directories that the sandbox can write. `offload` should be the vault's own: a source may hold
    a thread for half a minute, and names must be resolved meanwhile. `fetch`: who fetches instead (home.py).
    """

    def __init__(
        self,
        credentials: Sequence[Credential],
        *,
        offload: Offload,
        environ: Mapping[str, str],
        ask: Ask,
        tell: Tell = lambda _: None,
        upstream_ca: tuple[str, ...] = (),
        untrusted: tuple[str, ...] = (),
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
        deadline_s: float = DEADLINE_S,
        confirm_s: float = CONFIRM_S,
        fetch: Fetch | None = None,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._confirm_s = confirm_s
        self._fetcher = Fetcher(
            offload=offload,
            environ=environ,
            tell=tell,
            upstream_ca=upstream_ca,
            untrusted=untrusted,
            known=self.known,
            clock=clock,
            deadline_s=deadline_s,
        )
        self._fetch = fetch or self._fetcher.fetch
        self._credentials = {credential.name: credential for credential in credentials}
        self._known: dict[str, deque[Value]] = {name: deque(maxlen=KNOWN_LIMIT) for name in self._credentials}
        self._snapshot: tuple[Secret, ...] = ()
        self._decided: dict[str, bool] = {}
        self._late: set[str] = set()
        self._questions: dict[str, _Question] = {}
        self._leases = {
            name: self._lease(credential, monotonic) for name, credential in self._credentials.items()
        }

    def _lease(self, credential: Credential, monotonic: Clock) -> Lease:
        return Lease(
            lambda: self._fetch(credential),
            name=credential.name,
            clock=self._clock,
            monotonic=monotonic,
            on_value=lambda value: self._remember(credential.name, value),
        )

    async def get(self, credential: Credential, host: str) -> Value:
        """The value for a request to `host`. CredentialError, whose brief is for the refusal's page."""
        lease = self._leases.get(credential.name)
        if lease is None:
            raise CredentialError(f'there is no credential "{credential.name}" in this sandbox')
        if credential.confirm and not await self._is_allowed(credential, host):
            raise self._not_allowed(credential.name)
        return await lease.get()

    async def allowed(self, credential: Credential, host: str) -> bool:
        """Whether the user lets it be used, where that is asked: for what is no value (a forwarded SSH agent)."""
        self._credentials.setdefault(credential.name, credential)
        return not credential.confirm or await self._is_allowed(credential, host)

    async def renew(self, credential: Credential, refused: Value) -> Value | None:
        """Another value than one that an upstream refused; None if there is none."""
        lease = self._leases.get(credential.name)
        if lease is None or (credential.confirm and not self._decided.get(credential.name, False)):
            return None
        return await lease.renew(refused)

    def known(self) -> tuple[Secret, ...]:
        """Every confidential value that has been handed out, and its parts."""
        return self._snapshot

    def decide(self, name: str, *, allowed: bool) -> bool:
        """What the user says about a credential, asked or not. False if there is no such one, or it asks nobody."""
        credential = self._credentials.get(name)
        if credential is None or not credential.confirm:
            return False
        self._decided[name] = allowed
        self._late.discard(name)
        question = self._questions.get(name)
        if question is not None and not question.answer.done():
            question.answer.set_result(allowed)
        return True

    def pending(self) -> tuple[Pending, ...]:
        """The questions that wait, the oldest first."""
        return tuple(question.pending for question in self._questions.values())

    def states(self) -> tuple[State, ...]:
        """How it stands with each credential."""
        return tuple(self._state(credential) for credential in self._credentials.values())

    def close(self) -> None:
        """End the programs that still run for a source, and the questions."""
        self._fetcher.close()
        for question in self._questions.values():
            question.answer.cancel()

    def _state(self, credential: Credential) -> State:
        name = credential.name
        if name not in self._leases:
            word = "waits for your answer" if name in self._questions else "in use"
            return State(name=name, word=word)
        lease = self._leases[name]
        if name in self._questions:
            return State(name=name, word="waits for your answer")
        if credential.confirm and self._decided.get(name) is False:
            reason = self._not_allowed(name).brief
            return State(name=name, word="refused", expires_at=lease.expires_at, reason=reason)
        if lease.value is not None:
            return State(name=name, word="in use", expires_at=lease.expires_at)
        if lease.fetching:
            return State(name=name, word="being fetched")
        if lease.failure is not None:
            return State(name=name, word="fails", expires_at=lease.expires_at, reason=lease.failure.brief)
        if lease.expires_at is not None:
            return State(name=name, word="expired", expires_at=lease.expires_at)
        return State(name=name, word="not used yet")

    async def _is_allowed(self, credential: Credential, host: str) -> bool:
        """The user's answer; waits for it if there is none."""
        name = credential.name
        if name in self._decided:
            return self._decided[name]
        question = self._questions.get(name)
        if question is None:
            pending = Pending(name=name, host=host, since=self._clock())
            question = _Question(pending, asyncio.get_running_loop().create_future())
            self._questions[name] = question
            question.task = asyncio.create_task(self._put(credential, question))
        await asyncio.shield(question.task)  # a client that goes away does not withdraw the question
        return self._decided.get(name, False)

    async def _put(self, credential: Credential, question: _Question) -> None:
        """Ask, and wait for the answer: of whom was asked, or by `decide`."""
        name = credential.name
        asked = asyncio.ensure_future(self._ask(credential, question.pending.host))
        try:
            await asyncio.wait(
                {asked, question.answer}, timeout=self._confirm_s, return_when=asyncio.FIRST_COMPLETED
            )
            if name in self._decided:
                return
            failed = asked.done() and (asked.cancelled() or asked.exception() is not None)
            if asked.done() and not failed:
                self._decided[name] = asked.result() is True
                return
            if (
                failed and not question.answer.done()
            ):  # nobody could be asked: another command may still answer
                await asyncio.wait({question.answer}, timeout=self._confirm_s)
            if name not in self._decided:
                self._decided[name] = False
                self._late.add(name)
        finally:
            del self._questions[name]
            asked.cancel()
            question.answer.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await asked

    def _not_allowed(self, name: str) -> CredentialError:
        if name in self._late:
            brief = f'nobody allowed the use of credential "{name}" within {self._confirm_s:.0f} s'
        else:
            brief = f'the user has refused the use of credential "{name}"'
        return CredentialError(brief, resolution=f"the user can allow it with: cloister approve {name}")

    def _remember(self, name: str, value: Value) -> None:
        values = self._known[name]
        if all(value.secret.reveal() != known.secret.reveal() for known in values):
            values.append(value)
        self._snapshot = tuple(
            secret for values in self._known.values() for known in values for secret in known.confidential
        )


class _Question:
    """A question that waits. `answer` is what `decide` says."""

    def __init__(self, pending: Pending, answer: asyncio.Future[bool]) -> None:
        self.pending = pending
        self.answer = answer
        self.task: asyncio.Task[None]
