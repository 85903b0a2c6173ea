"""git's requests among all others: what a push asks for, and how it is told that it may not.

Rule 1: a push is held until `credentials/git_push.py` has judged it; HELD_BYTES of it at most.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloister.credentials import decode, git_push
from cloister.credentials.repository import git_service
from cloister.errors import UntrustedInputError
from cloister.gateway.page import Page
from cloister.types import Deny, PushRule

if TYPE_CHECKING:
    from cloister.gateway.bodies import Source
    from cloister.messages import RequestHead

HELD_BYTES = 64 << 20  # commits stand first in a pack, so that much more is seldom needed
_RULE = "git:push"
_ASK = 'add the ref to [git] push in cloister.toml, as in push = ["refs/heads/agent/*"], then run: cloister trust'


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A push that does not leave, and what it is answered."""

    denial: Deny
    answer: Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A request of `git push`: the question which refs there are, or the push itself."""

    rule: PushRule
    encoding: bytes
    advertisement: bool

    async def refusal(self, source: Source) -> Refused | None:
        """Why it may not leave; None if it may. OSError, TimeoutError or UntrustedInputError: the client's fault."""
        if self.advertisement or not self.rule.refs:
            if self.rule.refs:
                return None
            denial = Deny(reason="nothing may be pushed from this sandbox", rule=_RULE, ask=_ASK)
            return Refused(denial=denial, answer=advertisement(denial))
        judge = git_push.PushJudge(self.rule)
        held = 0
        parts: list[bytes] = []
        try:
            decoder = decode.decoder(self.encoding)
            while not judge.decided:
                part = await source.read()
                if not part:
                    judge.end()
                    break
                source.hold(len(part))
                parts.append(part)
                for piece in decoder.feed(part) if decoder is not None else (part,):
                    held += len(piece)
                    if held > HELD_BYTES:
                        raise UntrustedInputError(
                            f"whether it only follows cannot be told within {HELD_BYTES >> 20} MiB"
                        )
                    if judge.feed(piece):
                        break
                    await asyncio.sleep(0)  # others have waited while this was looked at
        except UntrustedInputError as error:
            denial = Deny(reason=f"this push cannot be judged: {error}", rule=_RULE)
            return Refused(denial=denial, answer=_page(git_push.answer(judge), "result"))
        source.put_back(parts)
        if not judge.refused:
            return None
        ref, reason = next(iter(judge.refused.items()))
        denial = Deny(reason=f"{ref}: {reason}", rule=_RULE, ask=_ASK)
        return Refused(denial=denial, answer=_page(git_push.answer(judge), "result"))


def push(rule: PushRule, head: RequestHead) -> Push | None:
    """What of a push a request is; None if it is none."""
    service = git_service(head.method, head.path, head.query)
    if service is None or service.name != "receive-pack":
        return None
    return Push(
        rule=rule,
        encoding=b",".join(head.values(b"content-encoding")),
        advertisement=service.advertisement,
    )


def is_push_advertisement(head: RequestHead) -> bool:
    """Whether a request asks for the refs that it wants to push to."""
    service = git_service(head.method, head.path, head.query)
    return service is not None and service.name == "receive-pack" and service.advertisement


def advertisement(denial: Deny) -> Page:
    """The answer to that question which `git push` shows."""
    reason = f"cloister: {denial.reason}" + (f"; to ask: {denial.ask}" if denial.ask else "")
    return _page(git_push.advertisement_refusal(reason), "advertisement")


def _page(body: bytes, kind: str) -> Page:
    headers = (
        ("Content-Type", f"application/x-git-receive-pack-{kind}"),
        ("Cache-Control", "no-cache"),
        ("X-Cloister-Refused", _RULE),
    )
    return Page(status=200, phrase="OK", headers=headers, body=body)
