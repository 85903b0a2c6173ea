"""A trust store in Java's own format, made by a program of its own: `python -m cloister.gateway.truststore PATH`.

A JVM reads no PEM bundle. Reading some 150 certificates to write them as PKCS12 takes 10 MB that the gateway would
keep for as long as it lives; a short-lived process gives them back.

Rule 1: it is handed public certificates only, on standard input.
"""

from __future__ import annotations

import sys

TIMEOUT_S = 60.0
PASSWORD = b"changeit"


def make(bundle_pem: bytes, path: str) -> None:
    """Start the program and wait for it. OSError if it fails."""
    from cloister.system import proc

    argv = [sys.executable, "-P", "-m", __name__, path]
    done = proc.run(argv, timeout_s=TIMEOUT_S, stdin=bundle_pem)
    if done.code:
        raise OSError(5, done.errors.decode(errors="replace").strip()[-200:], path)


def write(bundle_pem: bytes, path: str) -> None:
    """Write the certificates of `bundle_pem` as a PKCS12 trust store."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    from cloister.gateway.authority import write_public

    entries = [
        pkcs12.PKCS12Certificate(certificate, b"cloister-%d" % number)
        for number, certificate in enumerate(x509.load_pem_x509_certificates(bundle_pem))
    ]
    write_public(pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(PASSWORD)), path)


if __name__ == "__main__":
    write(sys.stdin.buffer.read(), sys.argv[1])
