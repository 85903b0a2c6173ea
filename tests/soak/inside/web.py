"""Trials over HTTP, with httpx: whole exchanges, faults of the upstream, and clients that break off.

Each takes a `Lane` and returns an outcome: "whole" (verified to the last byte), "refused" (by the gateway, as must be),
"failed" (visibly, which a fault of the network excuses), "aborted" (by us), "wrong" (never right).
"""

from __future__ import annotations

import hashlib
import os
import random
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

from . import places
from .notebook import Notebook

# httpcore does not see that an HTTP/2 stream on which it waits for room has been answered and reset
# (RFC 9113 section 8.1): that upload ends with the client's patience.
_UPLOAD = httpx.Timeout(40.0, read=10.0)
CONTEXT = ssl.create_default_context()
_MIB = 1 << 20


@dataclass(kw_only=True)
class Lane:
    """One client after the other; each is used for a few trials."""

    notebook: Notebook
    rng: random.Random
    trial: str = ""
    detail: str = ""  # what the outcome is about, for the judge outside
    kind: str = ""  # of the client
    _client: httpx.Client | None = field(default=None)

    @property
    def client(self) -> httpx.Client:
        """By the explicit proxy or without it, HTTP/2 or not."""
        if self._client is None or self.rng.random() < 0.1:
            self.close()
            http2, by_proxy = self.rng.random() < 0.5, self.rng.random() < 0.5
            self.kind = f"{'HTTP/2' if http2 else 'HTTP/1.1'} {'by the proxy' if by_proxy else 'directly'}"
            self._client = httpx.Client(
                http2=http2,
                trust_env=by_proxy,
                verify=CONTEXT,
                timeout=httpx.Timeout(40.0),
            )
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def note(self, response: httpx.Response) -> bool:
        """Write the head down; whether the origin answered, and not the gateway."""
        ours = response.headers.get("x-origin") is None
        self.notebook.answered(self.trial, response.status_code, by_gateway=ours)
        self.notebook.got(str(response.headers).encode())
        return not ours

    def ask(self, method: str, url: str, **how: object) -> httpx.Response:
        """A request whose answer is kept."""
        response = self.client.request(method, url, **how)  # type: ignore[arg-type]  # httpx's options
        self.note(response)
        self.notebook.got(response.content)
        return response


Trial = Callable[[Lane], str]


def _refused(response: httpx.Response, status: int = 403) -> str:
    if response.headers.get("x-origin") is not None:
        return "wrong"
    return "refused" if response.status_code == status else "failed"


def _failed(response: httpx.Response) -> str:
    """What the gateway says of an upstream that it cannot use."""
    return "failed" if response.headers.get("x-origin") is None and response.status_code >= 500 else "wrong"


def echo(lane: Lane) -> str:
    """The credential goes up, and comes back masked."""
    response = lane.ask("GET", f"https://{places.API}/echo/{lane.trial}")
    if response.headers.get("x-origin") is None:
        return _failed(response)
    return "whole" if places.MASK in response.text and lane.trial in response.text else "wrong"


def burst(lane: Lane) -> str:
    """Many small requests, one after the other."""
    for number in range(lane.rng.randrange(5, 25)):
        response = lane.ask("GET", f"https://{places.API}/small/{lane.trial}/{number}")
        if response.headers.get("x-origin") is None:
            return _failed(response)
        if response.text != f"small {lane.trial}/{number}\n":
            return "wrong"
    return "whole"


def _down(lane: Lane, host: str, size: int) -> str:
    with lane.client.stream("GET", f"https://{host}/bytes/{lane.trial}/{size}") as response:
        if not lane.note(response):
            return _failed(response)
        sha = hashlib.sha256()
        for part in response.iter_raw():
            sha.update(part)
    return "whole" if sha.hexdigest() == places.digest(lane.trial, size) else "wrong"


def _up(lane: Lane, host: str, size: int) -> str:
    declared = {"Content-Length": str(size)} if lane.rng.random() < 0.5 else {}
    body = places.bulk(lane.trial, size)
    response = lane.ask(
        "POST", f"https://{host}/upload/{lane.trial}", content=body, headers=declared, timeout=_UPLOAD
    )
    if response.headers.get("x-origin") is None:
        return _failed(response)
    return "whole" if response.text.strip() == places.digest(lane.trial, size) else "wrong"


def download(lane: Lane) -> str:
    return _down(lane, lane.rng.choice((places.API, places.RULE)), lane.rng.randrange(1, 16 * _MIB))


def upload(lane: Lane) -> str:
    return _up(lane, lane.rng.choice((places.API, places.RULE)), lane.rng.randrange(1, 8 * _MIB))


def spliced_download(lane: Lane) -> str:
    lane.close()  # a connection of its own: they are counted
    return _down(lane, places.SPLICE, lane.rng.randrange(1, 16 * _MIB))


def spliced_upload(lane: Lane) -> str:
    lane.close()
    return _up(lane, places.SPLICE, lane.rng.randrange(1, 8 * _MIB))


def slow_upload(lane: Lane) -> str:
    """The origin takes its time to read."""
    return _up(lane, places.SINK, 300_000)


def events(lane: Lane) -> str:
    """Server-sent events, each of which must come by itself."""
    count, seen = lane.rng.randrange(3, 15), 0
    with lane.client.stream("GET", f"https://{places.API}/events/{lane.trial}/{count}") as response:
        if not lane.note(response):
            return _failed(response)
        for line in response.iter_lines():
            lane.notebook.got(line.encode())
            seen += line.startswith("data: ")
    return "whole" if seen == count else "wrong"


def plain(lane: Lane) -> str:
    response = lane.ask("GET", f"http://{places.PLAIN}/small/{lane.trial}/0")
    if response.headers.get("x-origin") is None:
        return _failed(response)
    return "whole" if lane.trial in response.text else "wrong"


def refused_method(lane: Lane) -> str:
    return _refused(lane.ask("DELETE", f"https://{places.RULE}/small/{lane.trial}/0"))


def misplaced(lane: Lane) -> str:
    """A placeholder on its way to a host that its credential is not bound to."""
    stolen = {"X-Stolen": os.environ["API_TOKEN"]}
    return _refused(lane.ask("GET", f"https://{places.RULE}/small/{lane.trial}/0", headers=stolen))


def refused_host(lane: Lane) -> str:
    """A name that no rule grants: a page by the proxy, no address by DNS."""
    try:
        return _refused(lane.ask("GET", f"https://{lane.trial}.{places.EVIL}/"))
    except httpx.ConnectError as error:  # no such name
        return "refused" if "Name or service" in str(error) else "failed"
    except httpx.ProxyError as error:  # 403 to CONNECT
        return "refused" if "403" in str(error) else "failed"


def _unreachable(lane: Lane, host: str) -> str:
    response = lane.ask("GET", f"https://{host}/small/{lane.trial}/0")
    return "refused" if response.headers.get("x-origin") is None and response.status_code == 502 else "wrong"


def dead(lane: Lane) -> str:
    return _unreachable(lane, places.DEAD)


def lost(lane: Lane) -> str:
    """The name is granted, and DNS knows nothing of it."""
    return _unreachable(lane, places.LOST)


def cut(lane: Lane) -> str:
    """The origin resets the connection within the body: that must not look whole."""
    size = lane.rng.randrange(2000, 4 * _MIB)
    way = lane.rng.choice(("cut", "reset"))
    with lane.client.stream("GET", f"https://{places.FAULT}/{way}/{lane.trial}/{size}") as response:
        if not lane.note(response):
            return _failed(response)
        for _ in response.iter_raw():
            continue
    return "wrong"


def stall(lane: Lane) -> str:
    """The origin stops within the body, and the client loses patience."""
    timeout = httpx.Timeout(10.0, read=0.4)
    with lane.client.stream(
        "GET", f"https://{places.FAULT}/stall/{lane.trial}/1000", timeout=timeout
    ) as response:
        if not lane.note(response):
            return _failed(response)
        for _ in response.iter_raw():
            continue
    return "wrong"


def half_open(lane: Lane) -> str:
    """The origin accepts and never says a word of TLS."""
    url = f"https://{places.HALF}/small/{lane.trial}/0"
    return _failed(lane.ask("GET", url, timeout=httpx.Timeout(10.0, read=0.5, connect=10.0)))


def abort_download(lane: Lane) -> str:
    host = lane.rng.choice((places.API, places.SPLICE))
    lane.close()
    with lane.client.stream("GET", f"https://{host}/bytes/{lane.trial}/{16 * _MIB}") as response:
        if not lane.note(response):
            return _failed(response)
        wanted = lane.rng.randrange(1, 4 * _MIB)
        for part in response.iter_raw():
            wanted -= len(part)
            if wanted < 0:
                break
    return "aborted"


class _EnoughError(Exception):
    """We break off."""


def abort_upload(lane: Lane) -> str:
    host = lane.rng.choice((places.API, places.SPLICE))
    lane.close()

    def body() -> Iterator[bytes]:
        for _ in range(lane.rng.randrange(1, 40)):
            yield b"x" * places.BLOCK_BYTES
        raise _EnoughError

    try:
        response = lane.ask("POST", f"https://{host}/upload/{lane.trial}", content=body(), timeout=_UPLOAD)
    except _EnoughError:
        return "aborted"
    return _failed(response)


TRIALS: dict[str, tuple[int, Trial]] = {
    "echo": (20, echo),
    "burst": (20, burst),
    "download": (4, download),
    "upload": (4, upload),
    "spliced-download": (4, spliced_download),
    "spliced-upload": (4, spliced_upload),
    "slow-upload": (1, slow_upload),
    "events": (4, events),
    "plain": (8, plain),
    "refused-method": (8, refused_method),
    "misplaced": (6, misplaced),
    "refused-host": (8, refused_host),
    "dead": (3, dead),
    "lost": (3, lost),
    "cut": (5, cut),
    "stall": (2, stall),
    "half-open": (2, half_open),
    "abort-download": (4, abort_download),
    "abort-upload": (4, abort_upload),
}
