"""The guard: may the gateway dial this address, which the resolver gave for an allowed name?

Rule 1: only globally reachable unicast addresses pass. The tables are our own extract of IANA's registries
        (RFC 6890 and updates), because `ipaddress.is_global` has changed between Python's releases.
Rule 2: an address that carries an IPv4 address (mapped, compatible, 6to4, Teredo, ISATAP, translated) is
        refused, whatever it carries; NAT64's well-known prefix is judged by what it carries, as DNS64
        networks need it.
Rule 3: a rule's `address_ranges` open private ranges (split-horizon DNS). A metadata service is opened only
        by a range of exactly its address; multicast, unspecified and reserved addresses by nothing.
It does not resolve, and does not know pins: a pinned address is the user's own word.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from cloister.policy.match import PatternError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_METADATA: dict[Address, str] = {
    ip_address(text): cloud
    for text, cloud in {
        "169.254.169.254": "AWS, Azure, GCP, DigitalOcean, OpenStack, Oracle …",
        "169.254.169.253": "AWS (DNS)",
        "169.254.169.123": "AWS (time)",
        "169.254.169.255": "Linode",
        "169.254.170.2": "AWS ECS credentials",
        "169.254.170.23": "AWS EKS credentials",
        "169.254.42.42": "Scaleway",
        "169.254.0.23": "Tencent",
        "100.100.100.200": "Alibaba",
        "100.100.2.136": "Alibaba (DNS)",
        "100.100.2.138": "Alibaba (DNS)",
        "192.0.0.192": "Oracle",
        "168.63.129.16": "Azure (wire server)",
        "fd00:ec2::254": "AWS",
        "fd00:ec2::253": "AWS (DNS)",
        "fd00:ec2::23": "AWS EKS credentials",
        "fd20:ce::254": "GCP",
        "fd00:c1::a9fe:a9fe": "Oracle",
        "fd00:42::42": "Scaleway",
        "fd00:a9fe:a9fe::1": "Linode",
        "fe80::a9fe:a9fe": "OpenStack",
    }.items()
}

# Never dialled, whatever a rule says.
_NEVER: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(text), kind)
    for text, kind in (
        ("0.0.0.0/8", "an unspecified"),
        ("224.0.0.0/4", "a multicast"),
        ("240.0.0.0/4", "a reserved"),
        ("::/128", "an unspecified"),
        ("::ffff:0:0/96", "an IPv4-mapped"),
        ("::ffff:0:0:0/96", "an IPv4-translated"),
        ("64:ff9b:1::/48", "a local NAT64"),
        ("2002::/16", "a 6to4"),
        ("2001::/32", "a Teredo"),
        ("ff00::/8", "a multicast"),
    )
)
# RFC 4291 section 2.5.5.1; `::1` is loopback and stands in the next table.
_IPV4_COMPATIBLE = ip_network("::/96")
_LOOPBACK_V6 = ip_address("::1")

# Dialled only if a rule's address_ranges hold the address.
_NON_PUBLIC: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(text), kind)
    for text, kind in (
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignment"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("::1/128", "loopback"),
        ("100::/64", "discard"),
        ("2001::/23", "protocol assignment"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private (unique local)"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_V6 = ip_network("2000::/3")  # all that IANA has allocated as global unicast
# RFC 5214 section 6.1: ::[02]00:5efe:a.b.c.d as interface identifier
_ISATAP_IDENTIFIERS = (0x00005EFE, 0x02005EFE)


def refusal(untrusted_address: str, address_ranges: tuple[str, ...] = ()) -> str | None:
    """Why this address must not be dialled, or None if it may. Text that is no plain address is refused."""
    try:
        address = ip_address(untrusted_address)
    except ValueError:
        return "the address cannot be read"
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return f"{address.compressed.partition('%')[0]} carries a zone id"
    return _refusal(address, address_ranges)


def parse_range(text: str) -> Network:
    """A CIDR for `address_ranges`: non-public, not absurdly wide. PatternError tells what is wrong."""
    try:
        network = ip_network(text)
    except ValueError:
        raise PatternError(
            "not a CIDR range of addresses", expected='a range such as "10.1.0.0/16"'
        ) from None
    if any(network.version == never.version and network.overlaps(never) for never, _ in _NEVER):
        raise PatternError(
            "the range holds addresses that are never dialled (multicast, reserved, embedded IPv4 …)",
            expected='a private range such as "10.1.0.0/16"',
        )
    known = [*(inner for inner, _ in _NON_PUBLIC), *(ip_network(address) for address in _METADATA)]
    if not any(_within(network, outer) for outer in known):
        raise PatternError(
            "the range is not wholly private; public addresses need no range",
            expected='a private range such as "10.1.0.0/16"',
        )
    return network


def _refusal(address: Address, address_ranges: tuple[str, ...]) -> str | None:
    if isinstance(address, IPv6Address) and address in _NAT64:
        carried = IPv4Address(int(address) & 0xFFFFFFFF)
        reason = _refusal(carried, address_ranges)
        return reason and f"{address} is NAT64 for another address: {reason}"
    kind = _never_kind(address)
    if kind:
        return f"{address} is {kind} address"
    named = [
        network for network in map(_network, address_ranges) if network is not None and address in network
    ]
    if address in _METADATA:
        exact = any(network.num_addresses == 1 for network in named)
        return None if exact else f"{address} is a metadata service of a cloud ({_METADATA[address]})"
    if named:
        return None
    for network, kind in _NON_PUBLIC:
        if address in network:
            return f"{address} is not public: {kind}"
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return f"{address} is not public: outside the global unicast block"
    return None


def _never_kind(address: Address) -> str:
    for network, kind in _NEVER:
        if address in network:
            return (
                kind if kind.startswith("a") else f"a {kind}" if kind != "unspecified" else "the unspecified"
            )
    if isinstance(address, IPv4Address):
        return ""
    if address in _IPV4_COMPATIBLE and address != _LOOPBACK_V6:
        return "an IPv4-compatible"
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP_IDENTIFIERS:
        return "an ISATAP"
    return ""


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None  # nothing is allowed by a range that cannot be read


def _within(network: Network, outer: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(outer, IPv4Network) and network.subnet_of(outer)
    return isinstance(outer, IPv6Network) and network.subnet_of(outer)
