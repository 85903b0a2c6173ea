"""How the network of another's sandbox is reached. Its text goes into the program after verify/inside/talk.py, and
defines some of its functions anew: an attacker takes whatever way there is, by itself or through the sandbox's proxy.

CONFIG holds besides: "proxy" (a URL, or "environment"; "" for none), "sends" (the client itself puts the credential
into requests), "variable" (where the credential, or what stands for it, is in the environment).
"""

from __future__ import annotations

import base64
import os
import re
import socket
import urllib.parse

from cloister.verify.inside.talk import CONFIG, WAIT_S, RefusedError, name, secured, status_of_head

PROXY = urllib.parse.urlsplit(
    os.environ.get("HTTPS_PROXY", "") if CONFIG.get("proxy") == "environment" else CONFIG.get("proxy", "")
)
CONFIG["placeholder"] = os.environ.get(CONFIG.get("variable", ""), "")
_CREDENTIALED = ("bound", "misnamed", "expired", "selfsigned")
_OURS = ("127.0.0.1", 3128)  # the proxy that the probes know


def directly(address: str, port: int) -> socket.socket:
    found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.settimeout(WAIT_S)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.connect((address, port))
    except TypeError as error:  # a NUL in a name, which no resolver is asked for
        found.close()
        raise ValueError(str(error)) from None
    except BaseException:
        found.close()
        raise
    return found


def plain_http(host: str) -> bool:
    """Whether a proxy gets requests for it as they are (RFC 9112 section 3.2.2), without CONNECT."""
    return bool(PROXY.hostname) and host == name("plain")


def dial(address: str, port: int) -> socket.socket:
    if PROXY.hostname and ((address, port) == _OURS or (plain_http(address) and port == 80)):
        return directly(PROXY.hostname, PROXY.port or 80)
    try:
        return directly(address, port)
    except OSError:
        if not PROXY.hostname:
            raise
    return tunnel(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")


def resolve(host: str, family: int = socket.AF_INET) -> str:
    """By DNS; where there is none, a name that the proxy takes stands for itself."""
    try:
        return str(socket.getaddrinfo(host, 443, family, socket.SOCK_STREAM)[0][4][0])
    except OSError:
        if not PROXY.hostname:
            raise
    if not plain_http(host):
        tunnel(f"{host}:443").close()
    return host


def tunnel(target: str) -> socket.socket:
    """Through the proxy. Without one, as a client without one does: to that name and port itself."""
    if not PROXY.hostname:
        host, _, port = target.rpartition(":")
        return directly(host.strip("[]"), int(port))
    plain = directly(PROXY.hostname, PROXY.port or 80)
    words = "\r\n".join((f"CONNECT {target} HTTP/1.1", f"Host: {target}", *password()))
    plain.sendall(f"{words}\r\n\r\n".encode("utf-8", "surrogateescape"))
    status = status_of_head(plain)
    if status != 200:
        plain.close()
        raise RefusedError(f"the proxy answered {status}")
    return plain


def password() -> list[str]:
    """The header that the proxy asks for."""
    if not PROXY.username:
        return []
    user = f"{urllib.parse.unquote(PROXY.username)}:{urllib.parse.unquote(PROXY.password or '')}"
    return [f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}"]


def connected(host: str, *, family: int = socket.AF_INET) -> socket.socket:
    if PROXY.hostname:
        return secured(tunnel(f"{host}:443"), host)
    return secured(directly(resolve(host, family), 443), host)


def get(path: str, host: str, *headers: str) -> bytes:
    """As talk.py has it; to the credential's own host with the credential, where the client is who puts it in."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *headers]
    if plain_http(host) and path.startswith("/"):
        lines = [f"GET http://{host}{path} HTTP/1.1", f"Host: {host}", *password(), *headers]
    given = any(re.match("(?i)authorization:", one) for one in headers)
    if CONFIG.get("sends") and host in map(CONFIG["names"].get, _CREDENTIALED) and not given:
        lines.append(f"Authorization: Bearer {CONFIG['placeholder']}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
