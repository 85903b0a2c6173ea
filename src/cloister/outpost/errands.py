"""What the host does for its gateway in a container, and what it does not: values, and connections to pinned places.

Rule 1: it goes where the plan says and nowhere else: a name that is pinned, at the port that its pin allows; a proxy
        that the user's environment names.
Rule 2: a value goes to the gateway if the plan has the credential and, where it asks first, the user has said yes.
Rule 3: every errand answers, with what was asked for or with why not.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import Callable, Mapping

from cloister.errors import CredentialError
from cloister.gateway import corporate, upstream
from cloister.gateway.fetch import Fetcher
from cloister.gateway.offload import Offload
from cloister.outpost import heard
from cloister.outpost.frames import Message
from cloister.outpost.streams import Streams
from cloister.policy.codec import parse_policy
from cloister.secret import Secret
from cloister.secrets.source import DEADLINE_S

_KNOWN_LIMIT = 64
_WAIT_S = 30.0


class Errands:
    """Those of one sandbox."""

    def __init__(
        self,
        plan: Mapping[str, object],
        *,
        environ: Mapping[str, str],
        untrusted: tuple[str, ...],
        upstream_ca: tuple[str, ...],
        tell: Callable[[str], None],
    ) -> None:
        self._credentials = {one.name: one for one in parse_policy(plan["policy"]).credentials}
        self._pins = upstream.pins_of(plan)
        self._proxies = corporate.places(environ)
        self._decided: dict[str, bool] = {}
        self._known: deque[Secret] = deque(maxlen=_KNOWN_LIMIT)
        self._dialling: dict[int, asyncio.Task[None]] = {}
        self._offload = Offload()
        self._fetcher = Fetcher(
            offload=Offload(8, wait_s=_WAIT_S),
            environ=environ,
            tell=tell,
            upstream_ca=upstream_ca,
            untrusted=untrusted,
            known=lambda: tuple(self._known),
            clock=time.time,
            deadline_s=DEADLINE_S,
        )

    def decide(self, name: str, *, allowed: bool) -> None:
        """The user has answered the question about a credential."""
        self._decided[name] = allowed

    def overhear(self, line: bytes) -> None:
        """What another command of the user says to the gateway (control_server.py)."""
        try:
            asked = json.loads(line)
            operation, name = asked["op"], asked["name"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # no decision, then
        if operation in ("approve", "refuse") and isinstance(name, str):
            self.decide(name, allowed=operation == "approve")

    def note(self, stream: int, task: asyncio.Task[None]) -> None:
        """Who dials for a stream; `abandon` ends that."""
        self._dialling[stream] = task
        task.add_done_callback(lambda _: self._dialling.pop(stream, None))

    def abandon(self, stream: int) -> None:
        """Nobody waits for that connection any more."""
        task = self._dialling.get(stream)
        if task is not None:
            task.cancel()

    async def run(self, asked: Message, streams: Streams) -> Message:
        """Do what is asked; the answer."""
        match asked.get("op"):
            case "fetch":
                return await self._fetch(heard.text(asked, "name"))
            case "is-own":
                own = await self._offload.call(lambda: upstream.is_own(heard.text(asked, "address")))
                return {"own": own}
            case operation:
                try:
                    made = await (self._dial if operation == "dial" else self._dial_proxy)(
                        heard.text(asked, "host"), heard.number(asked, "port")
                    )
                except OSError as error:  # TimeoutError too
                    return {"errno": error.errno or 110, "text": error.strerror or "it took too long"}
                streams.join(heard.number(asked, "stream"), made.sock)
                return {"address": made.address}

    def close(self) -> None:
        """End what still runs."""
        self._fetcher.close()

    async def _dial(self, host: str, port: int) -> upstream.Upstream:
        pin = self._pins.get(host)
        real = None if pin is None else pin.real_port(port)
        if pin is None or real is None:
            raise OSError(13, "it is not pinned")
        return await upstream.reach(pin.address, real, self._offload)

    async def _dial_proxy(self, host: str, port: int) -> upstream.Upstream:
        if (host, port) not in self._proxies:
            raise OSError(13, "it is no proxy of the user's")
        return await upstream.reach(host, port, self._offload)

    async def _fetch(self, name: str) -> Message:
        credential = self._credentials.get(name)
        try:
            if credential is None:
                raise CredentialError(f'there is no credential "{name}" in this sandbox')
            if credential.confirm and self._decided.get(name) is not True:
                raise CredentialError(
                    f'the user has not allowed the use of credential "{name}"',
                    resolution=f"the user can allow it with: cloister approve {name}",
                )
            value = await self._fetcher.fetch(credential)
        except CredentialError as error:  # its details are the user's alone, who has been told
            return {"brief": error.brief, "resolution": error.resolution}
        self._known += value.confidential
        parts = [base64.b64encode(one.reveal()).decode() for one in value.confidential]
        return {"secret": parts, "expires_at": value.expires_at}
