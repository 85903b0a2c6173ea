"""How a Docker engine is reached, from what its client says of its context."""

from __future__ import annotations

import json

import pytest

from cloister.engines import reached

SOCKET = "unix:///var/run/docker.sock"


def context(host: str, *, name: str = "far", tls: bool = False, skip: bool = False) -> bytes:
    material = {"docker": ["ca.pem", "cert.pem"]} if tls else {}
    endpoint = {"Host": host, "SkipTLSVerify": skip}
    return json.dumps({"Name": name, "Endpoints": {"docker": endpoint}, "TLSMaterial": material}).encode()


@pytest.mark.parametrize(
    ("said", "environment", "endpoint", "name"),
    [
        (context(SOCKET, name="default"), {}, SOCKET, ""),
        (context("ssh://ada@far"), {}, "ssh://ada@far", "far"),
        (context("tcp://far:2376", name="default"), {"DOCKER_HOST": "tcp://far:2376"}, "tcp://far:2376", ""),
        (b"", {}, SOCKET, ""),
        (b"", {"DOCKER_HOST": "tcp://far:2376"}, "tcp://far:2376", ""),
        (b"[]", {"DOCKER_HOST": ""}, SOCKET, ""),
        (b'{"Endpoints": {"docker": 1}}', {}, SOCKET, ""),
    ],
)
def test_where_it_is(said: bytes, environment: dict[str, str], endpoint: str, name: str) -> None:
    found = reached.of_context(said, environment)
    assert (found.endpoint, found.context, found.is_socket) == (endpoint, name, endpoint == SOCKET)


@pytest.mark.parametrize(
    ("said", "environment", "expected"),
    [
        (context(SOCKET), {}, True),
        (context("ssh://ada@far"), {}, True),
        (context("tcp://far:2375"), {}, False),
        (context("http://far:2375"), {}, False),
        (context("tcp://far:2376", tls=True), {}, True),
        (context("tcp://far:2376", tls=True, skip=True), {}, False),
        (context("tcp://127.0.0.1:2375"), {}, True),
        (context("tcp://[::1]:2375"), {}, True),
        (context("tcp://localhost:2375/v1.24"), {}, True),
        (context("tcp://localhost.far.example:2375"), {}, False),
        (context("tcp://127.0.0.1@far:2375"), {}, False),
        (context("tcp://[::2]:2375"), {}, False),
        (context("tcp://far:2376"), {"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": "1"}, True),
        (context("tcp://far:2376"), {"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": ""}, False),
        (context("tcp://far:2376"), {"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS": "1"}, False),
        # The certificates of a context are not those of a host that is named beside it.
        (context("tcp://far:2376", tls=True), {"DOCKER_HOST": "tcp://far:2376"}, False),
        # This variable is the client's own, of DOCKER_HOST only.
        (context("tcp://far:2376"), {"DOCKER_TLS_VERIFY": "1"}, False),
    ],
)
def test_who_can_read_along(said: bytes, environment: dict[str, str], expected: bool) -> None:
    assert reached.of_context(said, environment).is_confidential is expected
