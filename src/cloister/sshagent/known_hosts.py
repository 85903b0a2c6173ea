"""Which keys the user's known_hosts has for a host (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").

A host is a name; its lines for other ports than 22 (`[name]:port`) count too. Of hashed lines only those for port 22
can be found.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

_PORT = re.compile(r"^\[(.+)\]:\d+$")


def keys(text: str, hosts: Iterable[str]) -> frozenset[bytes]:
    """The public keys (blobs) of these hosts."""
    wanted = tuple(hosts)
    found: set[bytes] = set()
    revoked: set[bytes] = set()
    for marker, names, blob, _ in _entries(text):
        if any(_names(names, host) for host in wanted):
            (revoked if marker == "@revoked" else found).add(blob)
    return frozenset(found - revoked)


def lines(text: str, hosts: Iterable[str]) -> str:
    """The lines for these hosts: what a client in the sandbox needs to know them."""
    wanted = tuple(hosts)
    kept = [line for _, names, _, line in _entries(text) if any(_names(names, host) for host in wanted)]
    return "".join(f"{line}\n" for line in kept)


def _entries(text: str) -> Iterator[tuple[str, str, bytes, str]]:
    """(marker, names, key, line) of each line that holds a plain key; authorities' keys are not hosts'."""
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if marker == "@cert-authority" or len(words) < 3:
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except ValueError:  # no base64, or not even ASCII
            continue
        yield marker, words[0], blob, line


def _names(names: str, host: str) -> bool:
    if names.startswith("|1|"):
        return _hashed(names, host)
    found = False
    for pattern in names.lower().split(","):
        if fnmatchcase(host.lower(), _PORT.sub(r"\1", pattern.removeprefix("!")).replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _hashed(names: str, host: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in names[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, host.encode(), hashlib.sha1).digest(), digest)
