"""The user's own proxy: which destinations go through it, and how."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from cloister.gateway.corporate import exempt, proxy_for
from cloister.gateway.offload import Offload
from cloister.gateway.upstream import Dialler, UpstreamError
from cloister.types import Host, HostPattern, Reach, Rule

RULE = Rule(id="r", pattern=HostPattern(reach=Reach.EXACT, name="api.example.invalid"))


@pytest.mark.parametrize(
    ("no_proxy", "host", "expected"),
    [
        ("", "api.example.com", False),
        ("*", "api.example.com", True),
        ("example.com", "api.example.com", True),
        (".example.com", "api.example.com", True),
        ("*.example.com", "api.example.com", True),
        ("ample.com", "api.example.com", False),
        ("other.com, api.example.com:443", "api.example.com", True),
        ("api.example.com:8443", "api.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "api.example.com", False),
        ("API.Example.COM", "api.example.com", True),
    ],
)
def test_no_proxy(no_proxy: str, host: str, expected: bool) -> None:
    assert exempt(host, 443, no_proxy) is expected


def test_which_variable_counts() -> None:
    environ = {"HTTPS_PROXY": "http://u%40x:p%3Aw@proxy.corp:3128", "http_proxy": "plain.corp:80"}
    tls = proxy_for("api.example.com", 443, environ)
    assert tls is not None
    assert (tls.host, tls.port, tls.authorization) == ("proxy.corp", 3128, "Basic dUB4OnA6dw==")
    assert "p:w" not in repr(tls)
    plain = proxy_for("api.example.com", 80, environ)
    assert plain is not None
    assert (plain.host, plain.port) == ("plain.corp", 80)
    assert proxy_for("api.example.com", 443, {}) is None
    assert (
        proxy_for("api.example.com", 80, {"HTTP_PROXY": "http://x:1"}) is None
    )  # CGI gives it to whoever asks


def test_another_kind_of_proxy_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="http:// proxies only"):
        proxy_for("api.example.com", 443, {"https_proxy": "socks5://x:1080"})


@pytest.mark.parametrize("url", ["http://[::1", "http://x:port", "http://x:99999", "["])
def test_what_is_no_url_is_an_error(url: str) -> None:
    with pytest.raises(UpstreamError, match="no URL"):
        proxy_for("api.example.com", 443, {"https_proxy": url})


class FakeProxy:
    """Answers one CONNECT, then echoes once."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.head = b""
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, self._listener:
            while b"\r\n\r\n" not in self.head:
                self.head += sock.recv(4096)
            sock.sendall(self._answer)
            if data := sock.recv(4096):
                sock.sendall(data)


def dial(environ: dict[str, str]) -> bytes:
    async def main() -> bytes:
        dialler = Dialler(pins={}, offload=Offload(), environ=environ)
        upstream = await dialler.dial(Host("api.example.invalid"), 443, RULE)
        loop = asyncio.get_running_loop()
        with upstream.sock as sock:
            await loop.sock_sendall(sock, b"through")
            return await loop.sock_recv(sock, 100)

    return asyncio.run(main())


def test_a_tunnel_through_the_proxy_which_resolves_the_name() -> None:
    proxy = FakeProxy(b"HTTP/1.1 200 Connection established\r\n\r\n")
    assert dial({"https_proxy": f"http://me:secret@127.0.0.1:{proxy.port}"}) == b"through"
    assert proxy.head.startswith(
        b"CONNECT api.example.invalid:443 HTTP/1.1\r\nHost: api.example.invalid:443\r\n"
    )
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in proxy.head


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Authenticate\r\n\r\n", "another user or password"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refused api.example.invalid:443"),
        (b"220 smtp here\r\n\r\n", "no answer that can be understood"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "spoke before"),
    ],
)
def test_a_proxy_that_refuses_is_named_without_its_password(answer: bytes, words: str) -> None:
    proxy = FakeProxy(answer)
    with pytest.raises(UpstreamError, match=words) as caught:
        dial({"https_proxy": f"http://me:secret@127.0.0.1:{proxy.port}"})
    assert "secret" not in str(caught.value)
