"""Resolving, the guard, and the race between addresses. The resolver is replaced; the addresses are loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from cloister.gateway import upstream
from cloister.gateway.offload import Offload
from cloister.gateway.upstream import Dialler, Pin, UpstreamError
from cloister.policy import address as guard
from cloister.types import Host, HostPattern, Reach, Rule
from tests.fakes.origin import Origin

HOST = Host("h.example.com")
PUBLIC = Rule(id="r", pattern=HostPattern(reach=Reach.EXACT, name=HOST.name))
SPLIT = Rule(
    id="r", pattern=HostPattern(reach=Reach.EXACT, name=HOST.name), address_ranges=("127.0.0.0/8", "::1/128")
)


@pytest.fixture
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """`answers("192.0.2.1", …)` makes every name resolve so; the list it returns fills with the names asked for."""

    def set_answers(*addresses: str) -> list[str]:
        asked: list[str] = []

        def lookup(name: str) -> tuple[str, ...]:
            asked.append(name)
            return addresses

        monkeypatch.setattr(upstream, "_lookup", lookup)
        return asked

    return set_answers


def dial(rule: Rule, port: int, *, pins: dict[str, Pin] | None = None, times: int = 1) -> str:
    async def main() -> str:
        dialler = Dialler(pins=pins or {}, offload=Offload())
        dialled = await asyncio.gather(*(dialler.dial(HOST, port, rule) for _ in range(times)))
        for one in dialled:
            one.sock.close()
        return dialled[0].address

    return asyncio.run(main())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "224.0.0.1",
        "::",
        "198.18.0.2",
    ],
)
def test_name_5_a_private_answer_is_refused_and_not_dialled(
    address: str, answers: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        raise AssertionError("dialled")

    monkeypatch.setattr(upstream, "_connect", never)
    answers(address)
    with pytest.raises(UpstreamError, match="resolves to a private address") as caught:
        dial(PUBLIC, 443)
    assert caught.value.status == 403


def test_only_the_allowed_of_several_answers_is_dialled(
    answers: Callable[..., list[str]], origin: Origin
) -> None:
    answers("10.0.0.1", "127.0.0.1", "169.254.169.254")
    assert dial(SPLIT, origin.port) == "127.0.0.1"


def test_a_pin_may_be_private_and_may_change_the_port(origin: Origin) -> None:
    pins = {HOST.name: Pin(address="127.0.0.1", port=origin.port)}
    assert dial(PUBLIC, 443, pins=pins) == "127.0.0.1"


def test_name_5_the_answers_of_a_verification_come_in_turn_and_are_judged_each_time(origin: Origin) -> None:
    async def main() -> None:
        dialler = Dialler(pins={}, offload=Offload(), answers={HOST.name: [["127.0.0.1"], ["10.0.0.1"]]})
        for _ in range(2):
            (await dialler.dial(HOST, origin.port, SPLIT)).sock.close()
            with pytest.raises(UpstreamError, match="resolves to a private address"):
                await dialler.dial(HOST, origin.port, SPLIT)

    asyncio.run(main())


def test_a_service_is_at_its_ports_and_nowhere_else(origin: Origin) -> None:
    """Beside it, on the loopback, are the ports of the host: whatever rule names the service, none of them is dialled."""
    pins = {HOST.name: Pin(address="127.0.0.1", ports={5432: origin.port})}
    assert dial(PUBLIC, 5432, pins=pins) == "127.0.0.1"
    for port in (origin.port, 22, 443):
        with pytest.raises(UpstreamError, match=f"has no port {port}") as caught:
            dial(PUBLIC, port, pins=pins)
        assert caught.value.status == 403
    with pytest.raises(UpstreamError, match="has no port"):
        dial(PUBLIC, origin.port, pins={HOST.name: Pin(address="127.0.0.1", port=origin.port, ports={})})


def test_families_fall_back(answers: Callable[..., list[str]], origin: Origin) -> None:
    answers("::1", "127.0.0.1")  # nobody listens on ::1
    assert dial(SPLIT, origin.port) == "127.0.0.1"


def test_a_silent_address_does_not_delay_the_next_for_long(
    answers: Callable[..., list[str]], origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = upstream._connect
    hung = asyncio.Event()

    async def connect(address: str, port: int) -> upstream.Upstream:
        if address == "127.0.0.2":
            try:
                await asyncio.Event().wait()
            finally:
                hung.set()
        return await real(address, port)

    monkeypatch.setattr(upstream, "_connect", connect)
    monkeypatch.setattr(upstream, "STAGGER_S", 0.01)
    answers("127.0.0.2", "127.0.0.1")
    assert dial(SPLIT, origin.port) == "127.0.0.1"
    assert hung.is_set()  # the loser was cancelled


def test_lookups_of_one_name_are_shared(answers: Callable[..., list[str]], origin: Origin) -> None:
    asked = answers("127.0.0.1")
    dial(SPLIT, origin.port, times=5)
    assert asked == [HOST.name]


def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> tuple[str, ...]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(upstream, "_lookup", fail)
    with pytest.raises(UpstreamError, match=r"the name h\.example\.com did not resolve"):
        dial(PUBLIC, 443)


def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(name: str) -> tuple[str, ...]:
        release.wait(10)
        return ()

    monkeypatch.setattr(upstream, "_lookup", hang)
    monkeypatch.setattr(upstream, "RESOLVE_S", 0.05)
    with pytest.raises(UpstreamError, match="timed out") as caught:
        dial(PUBLIC, 443)
    release.set()
    assert caught.value.status == 504


def test_an_address_that_hangs(answers: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(upstream, "_connect", hang)
    monkeypatch.setattr(upstream, "CONNECT_S", 0.05)
    answers("127.0.0.1")
    with pytest.raises(UpstreamError, match=r"connecting to h\.example\.com timed out"):
        dial(SPLIT, 443)


def test_the_families_take_turns() -> None:
    assert upstream._interleaved(("1::", "2::", "3::", "4.4.4.4")) == ("1::", "4.4.4.4", "2::", "3::")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_public_address_of_this_machine_is_refused(
    answers: Callable[..., list[str]], origin: Origin, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """NET-7: loopback stands for a public address here: to the kernel, both are this machine's."""
    monkeypatch.setattr(guard, "refusal", lambda *_: None)
    answers(address)
    with pytest.raises(UpstreamError, match="an address of this machine") as caught:
        dial(PUBLIC, origin.port)
    assert caught.value.status == 403
    assert not origin.seen


def test_an_address_elsewhere_is_not_this_machine() -> None:
    assert not upstream.is_own("192.0.2.1")
    assert not upstream.is_own("2001:db8::1")
