"""A trust store in Java's own format, made by a program of its own: `python -m cloister.gateway.truststore`.

A JVM reads no PEM bundle. Reading some 150 certificates to write them as PKCS12 takes 10 MB that the gateway would
keep for as long as it lives; a short-lived process gives them back.

Rule 1: it is handed public certificates only, on standard input.
Rule 2: it writes to standard output, and the gateway alone into the directory that the sandbox sees: that is removed
when the gateway has ended, which the program may outlive.
"""

from __future__ import annotations

import sys

TIMEOUT_S = 60.0
PASSWORD = b"changeit"


def make(bundle_pem: bytes, path: str) -> None:
    """Start the program, wait for it, and write what it has made. OSError if it fails."""
    from cloister.gateway.authority import write_public
    from cloister.system import proc

    argv = [sys.executable, "-P", "-m", __name__]
    done = proc.run(argv, timeout_s=TIMEOUT_S, stdin=bundle_pem)
    if done.code or len(done.output) >= proc.OUTPUT_LIMIT_BYTES:
        raise OSError(5, done.errors.decode(errors="replace").strip()[-200:], path)
    write_public(done.output, path)


def store(bundle_pem: bytes) -> bytes:
    """Give the certificates of `bundle_pem` as a PKCS12 trust store."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    entries = [
        pkcs12.PKCS12Certificate(certificate, b"cloister-%d" % number)
        for number, certificate in enumerate(x509.load_pem_x509_certificates(bundle_pem))
    ]
    return pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(PASSWORD))


if __name__ == "__main__":
    sys.stdout.buffer.write(store(sys.stdin.buffer.read()))
