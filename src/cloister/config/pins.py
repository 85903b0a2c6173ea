"""What only the user's own file holds: pinned addresses of names, and further certificate authorities.

Rule 1: a pin is the user's own word, so it may be private; it must still be an address, never another name.
Rule 2: a CA file that does not exist, or holds no certificate, is an error now, not a failure in the gateway.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

from cloister.config.files import read_bytes
from cloister.config.load import Loaded
from cloister.config.place import Place, place_of
from cloister.config.settings import host_path
from cloister.errors import UntrustedInputError
from cloister.policy.names import parse_host, parse_port


def pinned_hosts(files: Iterable[Loaded]) -> dict[str, object]:
    """The plan's "hosts" value."""
    hosts: dict[str, object] = {}
    for file in files:
        for name, text in file.document.network.hosts.items():
            place = place_of(file, "network", "hosts", name)
            try:
                host = parse_host(name)
            except UntrustedInputError as error:
                raise place.error(
                    str(error), expected="a name, without wildcard or port", found=name
                ) from None
            address, port = _address_and_port(text, place)
            hosts[host.name] = {"address": address, "port": port}
    return hosts


def upstream_cas(files: Iterable[Loaded], home: str) -> list[str]:
    """The plan's "upstream_ca" value: absolute paths of files that hold certificates."""
    paths: dict[str, None] = {}
    for file in files:
        for index, text in enumerate(file.document.network.upstream_ca):
            place = place_of(file, "network", "upstream_ca", index)
            path = host_path(text, place, home)
            _check_certificates(path, place)
            paths[path] = None
    return list(paths)


def _address_and_port(text: str, place: Place) -> tuple[str, int | None]:
    expected = '"192.0.2.1", "192.0.2.1:8443", "2001:db8::1" or "[2001:db8::1]:8443"'
    address, port = text, None
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise place.error("this is no address", expected=expected, found=text)
        port = rest[1:] if rest else None
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        parsed = ip_address(address)
        number = None if port is None else parse_port(port)
    except (ValueError, UntrustedInputError):
        raise place.error("this is no address, or no port", expected=expected, found=text) from None
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        raise place.error("a pinned address cannot carry a zone id", expected=expected, found=text)
    return str(parsed), number


def _check_certificates(path: str, place: Place) -> None:
    expected = "a PEM file with at least one certificate"
    try:
        content = read_bytes(path)
    except OSError as error:
        raise place.error(
            f"this file cannot be read: {error.strerror}", expected=expected, found=path
        ) from None
    if content is None:
        raise place.error("this file does not exist", expected=expected, found=path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise place.error("this file holds no certificate", expected=expected, found=path) from None
