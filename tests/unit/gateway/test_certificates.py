"""Our DER against three other readers: `cryptography.x509`, `openssl verify`, and a TLS handshake."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from cloister.gateway import authority as clerk
from cloister.gateway import certificates, truststore
from cloister.gateway.authority import Authority
from cloister.gateway.leaves import LeafCache

LONG = ".".join(["a" * 60] * 3) + ".example.com"


def _leaf(authority: Authority, subject: str | bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(authority.leaf(subject).certificate)


def test_ca() -> None:
    ca = x509.load_pem_x509_certificate(Authority("s1").pem)
    ca.verify_directly_issued_by(ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert ca.not_valid_before_utc < datetime.datetime.now(datetime.UTC)
    assert ca.not_valid_after_utc - ca.not_valid_before_utc <= datetime.timedelta(days=31)
    assert isinstance(key := ca.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)


@pytest.mark.parametrize("name", ["h.example.com", "x_y.example.com", LONG])
def test_leaf(name: str) -> None:
    authority = Authority("s1")
    leaf = _leaf(authority, name)
    ca = x509.load_pem_x509_certificate(authority.pem)
    leaf.verify_directly_issued_by(ca)
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert sans.value.get_values_for_type(x509.DNSName) == [name]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(usages.value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= datetime.timedelta(days=7)
    assert leaf.serial_number != _leaf(authority, name).serial_number
    if "_" not in name:
        verifier = PolicyBuilder().store(Store([ca])).build_server_verifier(x509.DNSName(name))
        assert verifier.verify(leaf, [])


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_leaf_for_an_address(address: str) -> None:
    leaf = _leaf(Authority("s1"), ipaddress.ip_address(address).packed)
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert sans.value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(address)]


def test_openssl_verifies_strictly(tmp_path: Path) -> None:
    authority = Authority("s1")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "leaf.pem").write_bytes(authority.leaf("h.example.com").certificate)
    strict = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "h.example.com",
    ]
    done = subprocess.run(
        [*strict, "-CAfile", "ca.pem", "leaf.pem"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "leaf.pem: OK\n", done.stderr
    other = Authority("s2")
    (tmp_path / "ca.pem").write_bytes(other.pem)
    assert subprocess.run(
        [*strict, "-CAfile", "ca.pem", "leaf.pem"], cwd=tmp_path, capture_output=True
    ).returncode


def test_a_handshake_verifies_the_name() -> None:
    authority = Authority("s1")
    server = LeafCache(authority).context("h.example.com")
    client = ssl.create_default_context(cadata=authority.pem.decode())
    assert _shake_hands(client, server, "h.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(client, server, "other.example.com")


def test_leaves_are_cached_and_the_oldest_dropped() -> None:
    cache = LeafCache(Authority("s1"), limit=2)
    first = cache.context("a.example.com")
    second = cache.context("b.example.com")
    assert cache.context("a.example.com") is first
    cache.context("c.example.com")
    assert cache.context("b.example.com") is not second


def test_no_private_key_in_a_file_and_none_printed(tmp_path: Path) -> None:
    authority = Authority("s1")
    reading, writing = os.pipe()
    roots, extra = tmp_path / "roots.pem", tmp_path / "extra.pem"
    roots.write_bytes(Authority("root").pem)
    extra.write_bytes(Authority("extra").pem)
    public = tmp_path / "public"
    public.mkdir()
    _session, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    clerk.publish(
        authority,
        ca_pipe=writing,
        control=control.fileno(),
        public_directory=str(public),
        host_roots=str(roots),
        upstream_ca=[str(extra)],
    )
    with os.fdopen(reading, "rb") as pipe:
        bundle = pipe.read()
    names = [certificate.subject.rfc4514_string() for certificate in x509.load_pem_x509_certificates(bundle)]
    assert names == [f"CN=cloister sandbox {name}" for name in ("root", "extra", "s1")]
    assert (public / "ca.pem").read_bytes() == authority.pem
    assert [path.name for path in public.iterdir()] == ["ca.pem"]
    assert "PRIVATE" not in repr(authority.leaf("h.example.com"))


def test_publish_closes_the_pipe_when_a_root_is_missing(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    _session, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with pytest.raises(FileNotFoundError):
        clerk.publish(
            Authority("s1"),
            ca_pipe=writing,
            control=control.fileno(),
            public_directory=str(tmp_path),
            host_roots="/missing",
            upstream_ca=[],
        )
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b""


def test_publish_ends_with_the_session_though_nobody_reads(tmp_path: Path) -> None:
    """bubblewrap, killed over its start, leaves a child that holds the pipe's other end and never reads."""
    reading, writing = os.pipe()
    roots = tmp_path / "roots.pem"
    roots.write_bytes(b"\n" * (1 << 20))  # more than a pipe holds
    session, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    session.send(b"a packet that waits is no end")
    threading.Timer(0.1, session.close).start()
    clerk.publish(
        Authority("s1"),
        ca_pipe=writing,
        control=control.fileno(),
        public_directory=str(tmp_path),
        host_roots=str(roots),
        upstream_ca=[],
    )
    os.close(reading)
    assert control.recv(100) == b"a packet that waits is no end"
    control.close()


def test_the_program_that_makes_a_truststore_writes_no_file(tmp_path: Path) -> None:
    """It may outlive the gateway, and then the directory is being removed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", truststore.__name__],
        input=Authority("a").pem, capture_output=True, cwd=tmp_path, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(b"\x30")  # DER
    assert not any(tmp_path.iterdir())


def test_java_truststore(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import pkcs12

    path = tmp_path / "truststore.p12"
    truststore.make(Authority("a").pem + Authority("b").pem, str(path))
    assert len(pkcs12.load_pkcs12(path.read_bytes(), b"changeit").additional_certs) == 2


def test_dates_after_2049_are_generalized() -> None:
    """RFC 5280 section 4.1.2.5."""
    authority = Authority("s1", clock=lambda: time.mktime((2060, 1, 1, 0, 0, 0, 0, 0, 0)))
    assert x509.load_pem_x509_certificate(authority.pem).not_valid_after_utc.year == 2060


def test_step_0_imports_nothing_slow() -> None:
    """The way to the CA, in a fresh interpreter. On a quiet machine: 12 ms of imports, 0.3 ms of work."""
    program = (
        "import sys; from cloister.session import gateway_child; from cloister.gateway import authority, patience; authority.Authority('x');"
        "print([name for name in ('asyncio', 'ssl', 'json', 'cryptography.x509', 'h11', 're',"
        "'cryptography.hazmat.primitives.serialization', 'cryptography.hazmat.backends.openssl.backend')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['re']")  # 3.11's typing needs re


def test_an_idle_gateway_has_loaded_nothing_that_only_some_sandboxes_need() -> None:
    """OpenSSL's hashes, the search for values, HTTP/2, WebSockets, signatures: 5 MB together."""
    program = (
        "import sys; from cloister.gateway import authority, asyncio_without_ssl, daemon; authority.Authority('x');"
        "from cloister.credentials import needles; needles.Needles(());"
        "print([name for name in ('_hashlib', 'ssl', 'ahocorasick_rs', 'h2', 'wsproto', 'datetime', 'brotli',"
        "'cloister.credentials.sigv4', 'cloister.gateway.tls') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pem_lines() -> None:
    text = certificates.pem(bytes(100)).decode().splitlines()
    assert max(map(len, text[1:-1])) == 64


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> bool:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        done = 0
        for side in (here, there):
            try:
                side.do_handshake()
                done += 1
            except ssl.SSLWantReadError:
                pass
        if done == 2:
            return True
    return False
