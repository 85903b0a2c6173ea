"""Nothing leaves a sandbox but what its policy names, by name, through the gateway (ATTACKS NET), in every runtime."""

from __future__ import annotations

import os
import socket

import pytest

from tests.contract.conftest import World

GET = """
use IO::Socket::INET;
my ($host, $port, $text) = @ARGV;
my $s = IO::Socket::INET->new(PeerHost => $host, PeerPort => $port, Timeout => 20) or do { print "no: $!"; exit };
print $s $text if length $text;
local $/; my $answer = <$s>; print $answer;
"""


def talk(world: World, host: str, port: int, text: str = "") -> str:
    return world.exec("/usr/bin/perl", "-e", GET, host, str(port), text).out


def request(host: str, path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


def test_an_allowed_name_answers(kept: World) -> None:
    assert "origin saw GET /one" in talk(
        kept, "plain.example.test", 80, request("plain.example.test", "/one")
    )


def test_through_the_proxy_too(kept: World) -> None:
    text = request("plain.example.test", "http://plain.example.test/two")
    assert "origin saw GET /two" in talk(kept, "127.0.0.1", 3128, text)


def test_a_refused_name_does_not_exist(kept: World) -> None:
    assert talk(kept, "evil.example.test", 80).startswith("no: ")


@pytest.mark.parametrize("address", ["192.0.2.7", "127.0.0.1"])
def test_a_refused_name_at_any_address_gets_the_page(kept: World, address: str) -> None:
    answer = talk(kept, address, 80, request("evil.example.test", "/"))
    assert " 403 " in answer.splitlines()[0]


def test_a_port_that_a_rule_names(kept: World) -> None:
    """Bound when the sandbox started."""
    assert "no: " not in talk(kept, "line.example.test", 2222, "quit\n")


def test_a_port_of_a_pattern(kept: World) -> None:
    """Bound when the sandbox asked for the name, in the namespace that already stands."""
    assert "no: " not in talk(kept, "a.wild.example.test", 2223, "quit\n")


@pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "169.254.169.254", "172.17.0.1"])
@pytest.mark.parametrize("port", [22, 2375, 8443])
def test_other_ports_are_refused_at_once(kept: World, address: str, port: int) -> None:
    """NET-2, NET-7."""
    assert talk(kept, address, port) == "no: Connection refused"


def test_ipv6_is_the_same(kept: World) -> None:
    """NET-5: where the sandbox has it, port 80 of any address is the gateway's, and others are refused."""
    script = (
        'use Socket qw(:all); for my $p (80, 22) { socket(my $s, AF_INET6, SOCK_STREAM, 0) or do { print "none"; exit }; '
        'print connect($s, pack_sockaddr_in6($p, inet_pton(AF_INET6, "2001:db8::1"))) ? "ok " : $! == 111 ? "refused " : "none " }'
    )
    assert kept.perl(script).out in ("ok refused ", "none none ", "none")


def test_datagrams_go_nowhere(kept: World) -> None:
    """NET-3: UDP to anywhere but port 53 is answered by nobody, and only loopback is there."""
    assert kept.sh("cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '").out == "lo\n"


def test_the_network_cannot_be_changed_from_inside(kept: World) -> None:
    """NET-6: SIOCSIFFLAGS on lo, and a route by netlink."""
    script = (
        'use Socket; socket(my $s, AF_INET, SOCK_DGRAM, 0) or die; my $r = pack("a16 s x22", "lo", 0); '
        'print ioctl($s, 0x8914, $r) ? "BREACHED" : "refused"'
    )
    assert kept.perl(script).out == "refused"


def test_the_hosts_own_services_are_out_of_reach(kept: World) -> None:
    """NET-7: TCP on the host's loopback, and its abstract Unix sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        name = f"cloister-contract-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        assert talk(kept, "127.0.0.1", server.getsockname()[1]) == "no: Connection refused"
        script = f'use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0); print connect($s, pack("S a*", AF_UNIX, "\\0{name}")) ? "BREACHED" : "refused"'
        assert kept.perl(script).out == "refused"


def test_what_happened_is_in_the_audit_log(kept: World) -> None:
    talk(kept, "evil.example.test", 80)
    assert any(event.get("host") == "evil.example.test" for event in kept.cloister.events("refuse"))
