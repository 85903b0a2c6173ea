"""Tunnels and the beginning of TLS (TLS-1 to TLS-4)."""

from __future__ import annotations

import socket
import struct
import threading

from cloister.verify.inside.talk import (
    Probe,
    RefusedError,
    answer,
    asked,
    closing,
    connected,
    dial,
    fetch,
    get,
    name,
    probe,
    resolve,
    secured,
    tunnel,
)


@probe("TLS-1")
def not_tls(found: Probe) -> None:
    host = name("open")

    def other_bytes(data: bytes) -> str:
        with tunnel(f"{host}:443") as stream:
            stream.sendall(data)
            got = stream.recv(200)
        if not got or got.startswith((b"HTTP/1.1 4", b"\x15")):
            raise RefusedError(f"got {got[:60]!r}")
        return repr(got[:60])

    def proper() -> str:
        with secured(tunnel(f"{host}:443"), host) as stream:
            return asked(stream, get("/control-TLS-1", host))

    found.control("TLS within CONNECT", proper)
    found.attack("SSH within CONNECT to 443", lambda: other_bytes(b"SSH-2.0-attack-TLS-1\r\n"))
    found.attack(
        "the first bytes of TLS, then others", lambda: other_bytes(b"\x16\x03\x01attack-TLS-1-record\r\n\r\n")
    )


@probe("TLS-2")
def hellos(found: Probe) -> None:
    host, evil = name("open").encode(), name("evil").encode()

    def without() -> str:
        with secured(dial(resolve(host.decode()), 443), None, verify=False) as stream:
            return asked(stream, get("/attack-TLS-2", host.decode()))

    def sent(*parts: bytes) -> str:
        """Who answers shows a certificate, in the clear before TLS 1.3: the gateway's own, under which it would say
        why it refuses, or the origin's.
        """
        flight = b""
        with dial(resolve(host.decode()), 443) as stream:
            for part in parts:
                stream.sendall(part)
            while b"cloister sandbox " not in flight:
                got = stream.recv(4096)
                if not got:
                    raise RefusedError("closed")
                flight += got
        if b"cloister sandbox verify" not in flight:
            raise RefusedError("the gateway answered")
        return "the origin answered"

    found.control("TLS with its name", lambda: fetch(host.decode(), "/ok"))
    found.control("a hello by hand", sent, record(hello(b"control-TLS-2", server_name(host))))
    found.attack("TLS without a server name", without)
    for what, mark, extensions in (
        ("encrypted_client_hello", b"attack-TLS-2-ech", server_name(host) + extension(0xFE0D, bytes(64))),
        ("encrypted_server_name", b"attack-TLS-2-esni", server_name(host) + extension(0xFFCE, bytes(64))),
        ("two server names", b"attack-TLS-2-two", server_name(host, evil)),
        ("the server name twice", b"attack-TLS-2-twice", server_name(host) + server_name(evil)),
        ("a server name with NUL", b"attack-TLS-2-nul", server_name(host + b"\0" + evil)),
        ("a long server name", b"attack-TLS-2-long", server_name(b"a." * 150 + host)),
        ("an empty server name", b"attack-TLS-2-empty", server_name(b"")),
        ("a name of another kind", b"attack-TLS-2-kind", server_name(host, kind=1)),
    ):
        found.attack(f"a hello with {what}", sent, record(hello(mark, extensions)))
    whole_hello = hello(b"attack-TLS-2-parts", server_name(evil))
    third = len(whole_hello) // 3
    pieces = (whole_hello[:2], whole_hello[2:third], whole_hello[third:])
    found.attack("another name, in three records", sent, b"".join(map(record, pieces)))
    found.attack("another name, in three records, one after the other", sent, *map(record, pieces))
    mark = b"attack-TLS-2-behind"
    behind = hello(mark, server_name(host)) + hello(mark, server_name(evil))
    found.attack("a second hello in the first one's record", sent, record(behind))
    huge = hello(b"attack-TLS-2-huge", server_name(host) + extension(0x4000, bytes(60000)))
    parts = [record(huge[at : at + 128]) for at in range(0, len(huge), 128)]
    found.attack(f"a hello in {len(parts)} records", sent, b"".join(parts))
    for literal in ("127.0.0.1", "203.0.113.7", "::1"):
        name_of_it = record(hello(b"attack-TLS-2-literal", server_name(literal.encode())))
        found.attack(f"the address {literal} as server name", sent, name_of_it)


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">HH", kind, len(data)) + data


def server_name(*names: bytes, kind: int = 0) -> bytes:
    listed = b"".join(bytes([kind]) + struct.pack(">H", len(one)) + one for one in names)
    return extension(0, struct.pack(">H", len(listed)) + listed)


def hello(mark: bytes, extensions: bytes) -> bytes:
    """A ClientHello of TLS 1.2 (RFC 5246 section 7.4.1.2), with a mark as its session's id."""
    suites = bytes.fromhex("c02bc02fc02cc030cca9cca8")
    extensions += extension(10, bytes.fromhex("0004001d0017")) + extension(11, b"\1\0")
    extensions += extension(13, bytes.fromhex("0006040305030804"))
    session = mark.ljust(32, b".")
    body = b"\3\3" + bytes(32) + bytes([len(session)]) + session + struct.pack(">H", len(suites)) + suites
    body += b"\1\0" + struct.pack(">H", len(extensions)) + extensions
    return b"\1" + struct.pack(">I", len(body))[1:] + body


def record(data: bytes) -> bytes:
    return b"\x16\3\1" + struct.pack(">H", len(data)) + data


@probe("TLS-3")
def name_and_address(found: Probe) -> None:
    host, evil = name("open"), name("evil")

    def at(address: str, server: str, mark: str) -> str:
        with secured(dial(address, 443), server, verify=False) as stream:
            return asked(stream, get(f"/attack-TLS-3-{mark}", server))

    found.control("a name at its address", lambda: fetch(host, "/control-TLS-3"))
    found.attack(
        "a name that is not granted, at the address of one that is", lambda: at(resolve(host), evil, "name")
    )
    found.attack(
        "a granted name, at an address of the sandbox's choice", lambda: at("203.0.113.7", host, "address")
    )


@probe("TLS-4")
def chained(found: Probe) -> None:
    host, evil = name("open"), name("evil")
    found.control("CONNECT, once", lambda: fetch(host, "/control-TLS-4"))

    def connect(target: str) -> bytes:
        return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()

    def accepted(stream: socket.socket, target: str) -> str:
        with stream:
            stream.sendall(connect(target))
            status = answer(stream)[0]
            if status != 200:
                raise RefusedError(f"{status}")
            stream.sendall(b"attack-TLS-4-accepted")
            return "accepted"

    for target in (f"{evil}:443", f"{host}:443"):
        found.attack(f"CONNECT {target} within TLS", lambda t=target: accepted(connected(name("bound")), t))
        found.attack(f"CONNECT {target} within CONNECT", lambda t=target: accepted(tunnel(f"{host}:443"), t))
        found.attack(
            f"CONNECT {target} within cleartext",
            lambda t=target: accepted(dial(resolve(name("plain")), 80), t),
        )
    for proxy in ("127.0.0.1:3128", "localhost:3128", "[::1]:3128"):
        found.attack(f"the proxy by way of the proxy, as {proxy}", lambda p=proxy: closing(tunnel, p))

    def by_relay(target: str, mark: str) -> str:
        port = relay()
        with dial("127.0.0.1", port) as plain:
            plain.sendall(connect(f"{target}:443"))
            status = answer(plain)[0]
            if status != 200:
                raise RefusedError(f"the proxy answered {status}")
            with secured(plain, target) as stream:
                return asked(stream, get(f"/{mark}-TLS-4-relay", target))

    found.control("a relay of the sandbox's own, to a granted name", lambda: by_relay(host, "control"))
    found.attack("a relay of the sandbox's own, to another", lambda: by_relay(evil, "attack"))


def relay() -> int:
    """A port of the sandbox's loopback that leads to the proxy: one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        finally:
            other.close()

    def serve() -> None:
        with listener:
            client = listener.accept()[0]
        proxy = dial("127.0.0.1", 3128)
        threading.Thread(target=carry, args=(client, proxy), daemon=True).start()
        carry(proxy, client)

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])
