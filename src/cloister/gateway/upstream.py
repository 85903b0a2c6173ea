"""Reach an allowed name outside: resolve it, judge every address, dial exactly an address that was judged.

Rule 1: the gateway resolves the name itself; no address ever comes from the sandbox.
Rule 2: an address that `policy.address` refuses is not dialled, whatever else the answer holds. A pin
        (`[network.hosts]`) is exempt, because the user named that address. Nor is an address of this machine,
        public or not, unless the rule's ranges hold it: what listens here may trust whoever comes from here.
Rule 3: every wait has a deadline, and a failure is one clear sentence.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, zip_longest

from cloister.gateway.offload import Offload
from cloister.types import Host, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.gateway.home import Home

RESOLVE_S = 5.0
CONNECT_S = 10.0
STAGGER_S = 0.25  # RFC 8305 section 8
ADDRESSES_LIMIT = 16
_CACHE_S = 10.0
_CACHE_NAMES = 1024
_ANY_PORT = 443


class UpstreamError(Exception):
    """The upstream cannot be reached. `status` is the page's: 403 if the guard refused, else 502 or 504."""

    def __init__(self, reason: str, *, status: int = 502) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Where the user says a name is: an address, and a port if it differs from the one asked for.

    A service has `ports`, from the one asked for to the real one; at others it is nowhere, whatever rule names them:
    beside it on its address are the ports of others.
    """

    address: str
    port: int | None = None
    ports: Mapping[int, int] | None = None

    def real_port(self, port: int) -> int | None:
        """Where `port` really is; None if nowhere."""
        return self.ports.get(port) if self.ports is not None else self.port or port


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A connected, non-blocking socket and the address that was dialled."""

    sock: socket.socket
    address: str


def pins_of(plan: Mapping[str, object]) -> dict[str, Pin]:
    """Those of a plan, its services' among them."""
    hosts = plan.get("hosts", {})
    if not isinstance(hosts, dict):
        raise TypeError('"hosts" in the plan is not an object')
    return {
        name: Pin(
            address=pin["address"],
            port=pin.get("port"),
            ports={int(asked): real for asked, real in pin["ports"].items()} if "ports" in pin else None,
        )
        for name, pin in hosts.items()
    }


def answers_of(plan: Mapping[str, object]) -> dict[str, list[list[str]]]:
    """Of a verification: what its names resolve to (verify/overlay.py)."""
    answers = plan.get("answers", {})
    if not isinstance(answers, dict):
        raise TypeError('"answers" in the plan is not an object')
    return answers


class Dialler:
    """Resolves and dials. One for the gateway's life.

    `answers` are what names of a verification's own zone resolve to (verify/overlay.py), in turn: nobody else knows
    them. They are judged as every answer is.
    """

    def __init__(
        self,
        *,
        pins: Mapping[str, Pin],
        offload: Offload,
        environ: Mapping[str, str] | None = None,
        home: Home | None = None,
        answers: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> None:
        self._pins = pins
        self._answers = {name: cycle(map(tuple, found)) for name, found in (answers or {}).items()}
        self._home = home  # it dials what was named in the host's view: pins, and the user's proxy
        self._proxies = {
            name: value
            for name, value in (environ or {}).items()
            if name.lower().endswith("_proxy") and value
        }
        self._offload = offload
        self._lookups: dict[str, tuple[float, asyncio.Task[tuple[str, ...]]]] = {}

    async def dial(self, host: Host, port: int, rule: Rule) -> Upstream:
        """Connect to an allowed name. UpstreamError if that cannot be done in time."""
        pin = self._pins.get(host.name)
        if pin is not None:
            addresses: tuple[str, ...] = (pin.address,)
            asked, real_port = port, pin.real_port(port)
            if real_port is None:
                raise UpstreamError(f"the service {host} has no port {port}", status=403)
            port = real_port
        elif host.name in self._answers:
            addresses = self._guarded(host, next(self._answers[host.name]), rule)
        elif self._proxies and (upstream := await self._by_proxy(host, port, rule)) is not None:
            return upstream
        else:
            addresses = self._guarded(host, await self._resolve(host), rule)
        try:
            async with asyncio.timeout(CONNECT_S):
                if self._home is not None:
                    if pin is not None:
                        return await self._home.dial(host.name, asked)
                    await self._refuse_own(host, addresses)
                return await _race(addresses, port)
        except TimeoutError:
            raise UpstreamError(f"connecting to {host} timed out", status=504) from None
        except OSError as error:
            raise UpstreamError(f"connecting to {host} failed: {_words(error)}") from None

    async def _by_proxy(self, host: Host, port: int, rule: Rule) -> Upstream | None:
        """Through the proxy of the user's environment; None if that is not for this host. UpstreamError."""
        from cloister.gateway import corporate  # only where there is a proxy

        proxy = corporate.proxy_for(host.name, port, self._proxies)
        if proxy is None:
            return None
        try:
            known = await self._resolve(host)
        except UpstreamError:  # behind such a proxy the names of the world often do not resolve
            known = ()
        if known:
            self._guarded(host, known, rule)
        where = f"the proxy {proxy.host}:{proxy.port} of your environment"
        try:
            async with asyncio.timeout(CONNECT_S):
                if self._home is not None:
                    upstream = await self._home.dial_proxy(proxy.host, proxy.port)
                else:
                    addresses = await self._offload.call(lambda: _lookup(proxy.host))
                    upstream = await _race(_interleaved(addresses), proxy.port)
                try:
                    await corporate.tunnel(upstream.sock, proxy, host, port)
                except BaseException:
                    upstream.sock.close()
                    raise
        except TimeoutError:
            raise UpstreamError(f"{where} did not answer in time", status=504) from None
        except (OSError, UnicodeError) as error:
            raise UpstreamError(
                f"{where} cannot be reached: {_words(error) if isinstance(error, OSError) else error}"
            ) from None
        return upstream

    async def _resolve(self, host: Host) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        expires, task = self._lookups.get(host.name, (0.0, None))
        if task is None or expires < loop.time():
            task = loop.create_task(self._offload.call(lambda: _lookup(host.name)))
            if len(self._lookups) >= _CACHE_NAMES:
                self._lookups.clear()
            self._lookups[host.name] = (loop.time() + _CACHE_S, task)
            task.add_done_callback(lambda done: self._forget_failure(host.name, done))
        try:
            async with asyncio.timeout(RESOLVE_S):
                return await asyncio.shield(task)
        except TimeoutError:
            raise UpstreamError(f"resolving {host} timed out", status=504) from None
        except (OSError, UnicodeError):
            raise UpstreamError(f"the name {host} did not resolve") from None

    def _forget_failure(self, name: str, done: asyncio.Task[tuple[str, ...]]) -> None:
        if done.cancelled() or done.exception() is not None:
            known = self._lookups.get(name)
            if known is not None and known[1] is done:
                del self._lookups[name]

    async def _refuse_own(self, host: Host, addresses: tuple[str, ...]) -> None:
        """As `_own_and_public`, of the host from afar. UpstreamError; OSError if the host does not say."""
        from cloister.policy import address as guard

        for address in addresses:
            named = guard.refusal(address, ()) is not None  # a private one: a range of the rule's holds it
            if not named and self._home is not None and await self._home.is_own(address):
                raise UpstreamError(f"{host} is an address of this machine ({address})", status=403)

    @staticmethod
    def _guarded(host: Host, addresses: tuple[str, ...], rule: Rule) -> tuple[str, ...]:
        from cloister.policy import address as guard  # ipaddress: half a megabyte, and pins do not need it

        reasons = {
            address: guard.refusal(address, rule.address_ranges) or _own_and_public(address, guard.refusal)
            for address in addresses
        }
        allowed = tuple(address for address, reason in reasons.items() if reason is None)
        if not allowed:
            reason = next(iter(reasons.values()), None) or "no address"
            raise UpstreamError(
                f"{host} resolves to a private address ({reason}); only the user's own [network.hosts] can pin it",
                status=403,
            )
        return _interleaved(allowed)


def _own_and_public(address: str, refusal: Callable[[str], str | None]) -> str | None:
    """Why not to dial a public address of this machine. (A private one has passed because a range names it.)"""
    if refusal(address) is None and is_own(address):
        return f"{address} is an address of this machine"
    return None


def is_own(address: str) -> bool:
    """Whether an address is one of this machine's (a gateway in a container asks its host).

    The kernel reaches its own addresses from themselves; asking for the route sends nothing.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _ANY_PORT))
            source = probe.getsockname()[0]
    except OSError:
        return False  # no route: dialling will say so
    return socket.inet_pton(family, source) == socket.inet_pton(family, address)


def _lookup(name: str) -> tuple[str, ...]:
    """Blocking. The addresses of a name, in the system's order."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:ADDRESSES_LIMIT]


def _interleaved(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The families in turn, the resolver's first choice first (RFC 8305 section 4)."""
    first = ":" in addresses[0]
    one = [address for address in addresses if (":" in address) == first]
    other = [address for address in addresses if (":" in address) != first]
    return tuple(address for address in chain.from_iterable(zip_longest(one, other)) if address is not None)


async def reach(name: str, port: int, offload: Offload) -> Upstream:
    """Connect to a place that the user has named, an address or a name. OSError; TimeoutError."""
    async with asyncio.timeout(CONNECT_S):
        return await _race(_interleaved(await offload.call(lambda: _lookup(name))), port)


async def _race(addresses: tuple[str, ...], port: int) -> Upstream:
    """The first of `addresses` to answer; the next is tried when one fails, or after STAGGER_S."""
    if len(addresses) == 1:
        return await _connect(addresses[0], port)
    waiting = list(reversed(addresses))
    attempts: set[asyncio.Task[Upstream]] = set()
    failure = OSError("no address")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_connect(waiting.pop(), port)))
            done, attempts = await asyncio.wait(
                attempts, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            winners = [attempt.result() for attempt in done if attempt.exception() is None]
            for late in winners[1:]:
                late.sock.close()
            if winners:
                return winners[0]
            for attempt in done:
                if isinstance(error := attempt.exception(), OSError):
                    failure = error
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_late)
            attempt.cancel()
    raise failure


def _close_late(attempt: asyncio.Task[Upstream]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().sock.close()


async def _connect(address: str, port: int) -> Upstream:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return Upstream(sock=sock, address=address)


def _words(error: OSError) -> str:
    """The kernel's words, without the address that asyncio puts into its own."""
    return os.strerror(error.errno).lower() if error.errno else type(error).__name__
