"""The sandbox's own certificate authority: made at start, its key only in this process's memory.

Rule 1: on the start-up path (bubblewrap waits for the bundle): imports neither asyncio, ssl nor
        cryptography.x509.
Rule 2: no private key is ever written to a named file; OpenSSL gets a leaf's key through a memfd
        (`tls.py`).
Rule 3: the bundle that the sandbox trusts is the host's roots, the user's `upstream_ca`, and this CA, in
        that order.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Callable
from contextlib import suppress

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from cloister.gateway import certificates
from cloister.values import dataclass

BUNDLE_LIMIT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A leaf certificate with its private key, both as PEM. Never printed, never written to a named file."""

    certificate: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return "Leaf(…)"


class _EcdsaSha256(ec.ECDSA):
    """ec.ECDSA(SHA256()), whose constructor loads all of OpenSSL's binding: 6 ms, while bubblewrap waits for the CA."""

    def __init__(self) -> None:  # the base class's asks that binding only about deterministic signatures
        pass

    @property
    def algorithm(self) -> SHA256:
        return SHA256()

    @property
    def deterministic_signing(self) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A CA whose key is elsewhere, in a gateway's container."""

    pem: bytes


class Authority:
    """One sandbox's CA. `pem` is what the sandbox must trust."""

    def __init__(self, sandbox_id: str, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._ca = certificates.ca_certificate(
            name=f"cloister sandbox {sandbox_id}"[:64],
            public_key=_point(self._key),
            serial=_serial(),
            now=clock(),
            sign=self._sign,
        )
        self.pem = certificates.pem(self._ca.der)
        self.der = self._ca.der

    def leaf(self, subject: str | bytes) -> Leaf:
        """A fresh certificate for a canonical name, or for a packed address."""
        key = ec.generate_private_key(ec.SECP256R1())
        der = certificates.leaf_certificate(
            ca=self._ca,
            subject=subject,
            public_key=_point(key),
            serial=_serial(),
            now=self._clock(),
            sign=self._sign,
        )
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Leaf(certificate=certificates.pem(der) + self.pem, private_key=private_key)

    def _sign(self, message: bytes) -> bytes:
        return self._key.sign(message, _EcdsaSha256())


def publish(
    authority: Authority | Published,
    *,
    ca_pipe: int,
    control: int,
    public_directory: str,
    host_roots: str | None,
    upstream_ca: list[str],
) -> None:
    """Write `ca.pem` (this CA alone) into `public_directory`, then the bundle to `ca_pipe`, and close that.

    Whatever fails, the pipe is closed, so that bubblewrap does not wait for ever. OSError names the file.
    The other way round, bubblewrap may die and never read: the end of `control` ends the writing.
    """
    with open(ca_pipe, "wb", buffering=0) as pipe:
        write_public(authority.pem, os.path.join(public_directory, "ca.pem"))
        view = memoryview(bundle(authority, host_roots, upstream_ca))
        with suppress(OSError):  # more than the system grants: then the reader and we take turns
            fcntl.fcntl(ca_pipe, fcntl.F_SETPIPE_SZ, len(view))
        os.set_blocking(ca_pipe, False)
        poll = select.poll()
        poll.register(ca_pipe, select.POLLOUT)
        poll.register(control, 0)  # POLLHUP alone: packets may wait
        while view and control not in dict(poll.poll()):
            view = view[pipe.write(view) or 0 :]


def bundle(authority: Authority | Published, host_roots: str | None, upstream_ca: list[str]) -> bytes:
    """The certificates that the sandbox trusts, as PEM (Rule 3)."""
    parts = [_read(path) for path in ([host_roots] if host_roots else []) + upstream_ca]
    return b"\n".join([*parts, authority.pem])


def write_public(data: bytes, path: str) -> None:
    """Write a file of the directory that the sandbox sees."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(descriptor, "wb") as file:
        file.write(data)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(BUNDLE_LIMIT_BYTES + 1)
    if len(data) > BUNDLE_LIMIT_BYTES:
        raise OSError(27, f"more than {BUNDLE_LIMIT_BYTES} bytes of certificates", path)
    return data


def _point(key: ec.EllipticCurvePrivateKey) -> certificates.Point:
    numbers = key.public_key().public_numbers()
    return numbers.x, numbers.y


def _serial() -> int:
    """159 random bits: positive, and at most 20 octets (RFC 5280 section 4.1.2.2)."""
    return int.from_bytes(os.urandom(20), "big") >> 1 | 1
