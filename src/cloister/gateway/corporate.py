"""The user's own proxy (HTTPS_PROXY, NO_PROXY): where the way out of the host leads through one.

Rule 1: a pinned name ([network.hosts]) is dialled as it is pinned; everything else that the variables cover goes to the
        proxy, which resolves the name. Where the name resolves here too, the guard against private addresses holds;
        where it does not, the proxy decides.
Rule 2: the proxy's password goes to the proxy alone, and into no message.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from cloister.errors import UntrustedInputError
from cloister.gateway import strict
from cloister.gateway.upstream import UpstreamError
from cloister.gateway.wire import SocketWire, read_head
from cloister.types import Host

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that speaks plain HTTP towards us. `authorization` is a header's value, or empty."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:  # without the password
        return f"Proxy({self.host}:{self.port})"


def proxy_for(host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for a destination, by the variables that curl and Go read; None to go directly.

    UpstreamError if what they name cannot be used.
    """
    names: tuple[str, ...] = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    if port == _DEFAULT_PORTS["http"]:
        names = ("http_proxy", "all_proxy", "ALL_PROXY")  # not HTTP_PROXY: as curl, for CGI's sake
    text = next((environ[name] for name in names if environ.get(name)), "")
    if not text or exempt(host, port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port_there = parts.port or 80
    except ValueError:
        raise UpstreamError(
            "the proxy in your environment is no URL; expected http://[USER:PASSWORD@]HOST:PORT"
        ) from None
    if parts.scheme != "http" or not parts.hostname:
        raise UpstreamError(
            f'the proxy in your environment is "{parts.scheme}://", and cloister speaks to http:// proxies only'
        )
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(host=parts.hostname, port=port_there, authorization=authorization)


def places(environ: Mapping[str, str]) -> frozenset[tuple[str, int]]:
    """Every proxy that the variables name, as host and port; one that cannot be used is none."""
    found = set()
    for name, text in environ.items():
        if name.lower().endswith("_proxy") and name.lower() != "no_proxy" and text:
            try:
                parts = urlsplit(text if "://" in text else f"http://{text}")
                found.add((parts.hostname or "", parts.port or 80))
            except ValueError:
                continue
    return frozenset(found)


def exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether NO_PROXY names a destination: `*`, names and their subdomains, `host:port`, addresses, ranges."""
    for entry in re.split(r"[,\s]+", no_proxy.strip().lower()):
        if entry == "*":
            return True
        name, _, number = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        if number and number != str(port):
            continue
        name = name.removeprefix("*").lstrip(".")
        if name and (host == name or host.endswith(f".{name}")):
            return True
        if _holds(entry, host):
            return True
    return False


async def tunnel(sock: socket.socket, proxy: Proxy, host: Host, port: int) -> None:
    """Ask a proxy that was dialled for the destination; then the socket is the destination's. UpstreamError."""
    where = f"the proxy {proxy.host}:{proxy.port} of your environment"
    wire = SocketWire(sock)
    lines = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        await wire.send("\r\n".join([*lines, "", ""]).encode())
        untrusted = await read_head(wire, limit_bytes=strict.HEAD_LIMIT_BYTES)
        status = None if untrusted is None else strict.response_head(untrusted).status
    except (OSError, UntrustedInputError):
        raise UpstreamError(f"{where} gave no answer that can be understood") from None
    if status is None:
        raise UpstreamError(f"{where} closed the connection")
    if status == 407:
        raise UpstreamError(f"{where} wants another user or password (407)")
    if not 200 <= status < 300:
        raise UpstreamError(f"{where} refused {host}:{port} ({status})")
    if wire.buffer:
        raise UpstreamError(f"{where} spoke before it was asked anything")
    wire.detach()


def _holds(entry: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
