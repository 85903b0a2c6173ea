"""What the host does for its gateway, and what it does not (near.py Rules 1 and 2)."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from cloister.outpost.errands import Errands
from cloister.outpost.frames import Message
from cloister.outpost.streams import Streams
from cloister.policy.codec import policy_document
from cloister.system import proc
from cloister.types import Credential, Policy
from tests.unit.gateway.test_vault import credential
from tests.unit.outpost.test_streams import Half


def asked_for(name: str, source: str, *, confirm: bool = False) -> Credential:
    return dataclasses.replace(
        credential(name, source, confirm=confirm), placeholder=f"cloister-placeholder-of-{name}-0123456789"
    )


def plan(port: int) -> dict[str, object]:
    policy = Policy(
        bans=(), grants=(),
        credentials=(asked_for("one", "env:TOKEN"), asked_for("two", "env:TOKEN", confirm=True), asked_for("three", "file:/nonexistent/place")),
    )  # fmt: skip
    return {
        "policy": policy_document(policy),
        "hosts": {
            "db.example": {"address": "127.0.0.1", "port": port},
            "service.example": {"address": "127.0.0.1", "port": None, "ports": {"5432": port}},
        },
    }


def run(
    test: Callable[[Callable[[Message], Awaitable[Message]], Errands, Streams], Awaitable[None]],
    *,
    environ: dict[str, str] | None = None,
) -> list[str]:
    """Run with errands whose pins lead to a server of the test's; what the user was told."""
    told: list[str] = []

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            errands = Errands(
                plan(port), environ={"TOKEN": "t0ken", "PATH": proc.PATH, **(environ or {})}, untrusted=(), upstream_ca=(),
                tell=told.append,
            )  # fmt: skip
            one, other = os.pipe(), os.pipe()
            half, peer = Half(one[0], other[1]), Half(other[0], one[1])
            async with asyncio.timeout(30):
                await test(lambda asked: errands.run(asked, half.streams), errands, half.streams)
            errands.close()
            for each in (half, peer):
                each.streams.close()
                each.channel.close()

    asyncio.run(main())
    return told


Ask = Callable[[Message], Awaitable[Message]]


def test_a_value_goes_in_and_its_details_do_not() -> None:
    async def test(ask: Ask, errands: Errands, _: Streams) -> None:
        answer = await ask({"op": "fetch", "name": "one"})
        assert answer == {"secret": [base64.b64encode(b"t0ken").decode()], "expires_at": None}
        failed = await ask({"op": "fetch", "name": "three"})
        assert set(failed) == {"brief", "resolution"}
        assert "/nonexistent" not in str(failed["brief"])
        assert "no credential" in str((await ask({"op": "fetch", "name": "four"}))["brief"])

    assert any("/nonexistent/place" in text for text in run(test)), "the user hears the details"


@pytest.mark.parametrize("way", ["answer", "approve"])
def test_one_that_asks_waits_for_the_users_word_here(way: str) -> None:
    """The container's own word is not enough: it may be the attacker's."""

    async def test(ask: Ask, errands: Errands, _: Streams) -> None:
        def says(*, allowed: bool) -> None:
            if way == "answer":
                errands.decide("two", allowed=allowed)
            else:
                operation = "approve" if allowed else "refuse"
                errands.overhear(json.dumps({"op": operation, "name": "two"}).encode())

        asked: Message = {"op": "fetch", "name": "two"}
        assert "secret" not in await ask(asked)
        errands.overhear(b'{"op": "pending"}')
        errands.overhear(b"nonsense")
        assert "secret" not in await ask(asked)
        says(allowed=True)
        assert "secret" in await ask(asked)
        says(allowed=False)
        assert "secret" not in await ask(asked)

    run(test)


def test_it_dials_what_is_pinned() -> None:
    async def test(ask: Ask, errands: Errands, streams: Streams) -> None:
        answer = await ask({"op": "dial", "host": "db.example", "port": 5432, "stream": 3})
        assert answer == {"address": "127.0.0.1"}
        assert len(streams) == 1
        assert "errno" not in await ask({"op": "dial", "host": "service.example", "port": 5432, "stream": 5})

    run(test)


@pytest.mark.parametrize(
    "asked",
    [
        {"op": "dial", "host": "127.0.0.1", "port": 22},
        {"op": "dial", "host": "evil.example", "port": 443},
        {"op": "dial", "host": "service.example", "port": 22},
        {"op": "dial-proxy", "host": "127.0.0.1", "port": 22},
        {"op": "dial-proxy", "host": "proxy.example", "port": 3129},
    ],
)
def test_it_dials_nothing_else(asked: Message) -> None:
    async def test(ask: Ask, errands: Errands, streams: Streams) -> None:
        assert (await ask({**asked, "stream": 3}))["errno"] == 13
        assert len(streams) == 0

    run(test, environ={"HTTPS_PROXY": "http://proxy.example:3128"})


def test_the_users_proxy_is_dialled() -> None:
    async def test(ask: Ask, errands: Errands, streams: Streams) -> None:
        with socket.create_server(("127.0.0.1", 0)) as proxy:
            port = proxy.getsockname()[1]
            errands._proxies = frozenset({("127.0.0.1", port)})
            assert "errno" not in await ask(
                {"op": "dial-proxy", "host": "127.0.0.1", "port": port, "stream": 3}
            )

    run(test)


def test_addresses_of_this_machine_are_its_own() -> None:
    async def test(ask: Ask, errands: Errands, _: Streams) -> None:
        assert await ask({"op": "is-own", "address": "127.0.0.1"}) == {"own": True}
        assert await ask({"op": "is-own", "address": "192.0.2.1"}) == {"own": False}

    run(test)


def test_nobody_is_dialled_for_who_has_given_up() -> None:
    async def test(ask: Ask, errands: Errands, streams: Streams) -> None:
        async def dial() -> None:
            await ask({"op": "dial", "host": "db.example", "port": 1, "stream": 9})

        task = asyncio.create_task(dial())
        errands.note(9, task)
        errands.abandon(9)
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert len(streams) == 0

    run(test)
