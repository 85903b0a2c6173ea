"""Render X.509 certificates (RFC 5280) as DER: the sandbox's CA and its leaf certificates.

The gateway writes its CA while bubblewrap waits for it, and `cryptography.x509` takes 50 ms to import, so
the few structures that are needed are encoded here. The tests check them with `cryptography.x509`,
`openssl verify -x509_strict` and a TLS handshake.

Rule 1: it encodes and never parses. Keys, serial numbers and the clock are arguments; `sign` is given by
        the caller.
Rule 2: everything is ECDSA P-256 with SHA-256; a public key is a point, as its two coordinates.
Rule 3: a leaf has one name (DNS or address), `serverAuth`, and never lives longer than LEAF_LIFETIME_S.
"""

from __future__ import annotations

import time
from binascii import b2a_base64
from collections.abc import Callable

from cloister.values import dataclass

Sign = Callable[[bytes], bytes]  # message → DER ECDSA-Sig-Value over its SHA-256
Point = tuple[int, int]  # on P-256

CLOCK_SKEW_S = 3600
CA_LIFETIME_S = 30 * 86400
LEAF_LIFETIME_S = 7 * 86400

_BOOLEAN, _INTEGER, _BIT_STRING, _OCTET_STRING, _OID, _UTF8 = 0x01, 0x02, 0x03, 0x04, 0x06, 0x0C
_SEQUENCE, _SET = 0x30, 0x31
_SUBJECT_ALT_NAME, _BASIC_CONSTRAINTS, _KEY_USAGE = "2.5.29.17", "2.5.29.19", "2.5.29.15"
_EXTENDED_KEY_USAGE, _SUBJECT_KEY_ID, _AUTHORITY_KEY_ID = "2.5.29.37", "2.5.29.14", "2.5.29.35"
_EC_PUBLIC_KEY, _PRIME256V1 = "1.2.840.10045.2.1", "1.2.840.10045.3.1.7"
_COMMON_NAME, _SERVER_AUTH, _ECDSA_SHA256 = "2.5.4.3", "1.3.6.1.5.5.7.3.1", "1.2.840.10045.4.3.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaCertificate:
    """A CA certificate, and what its leaves must repeat of it."""

    der: bytes
    name: str
    key_id: bytes


def ca_certificate(*, name: str, public_key: Point, serial: int, now: float, sign: Sign) -> CaCertificate:
    """A self-signed CA (path length 0), valid from an hour before `now` for CA_LIFETIME_S."""
    key_id = _key_id(public_key)
    extensions = (
        _extension(_BASIC_CONSTRAINTS, _sequence(_der(_BOOLEAN, b"\xff"), _integer(0)), critical=True),
        _extension(_KEY_USAGE, _der(_BIT_STRING, b"\x01\x06"), critical=True),  # keyCertSign, cRLSign
        _extension(_SUBJECT_KEY_ID, _der(_OCTET_STRING, key_id)),
        _extension(_AUTHORITY_KEY_ID, _sequence(_der(0x80, key_id))),
    )
    der = _certificate(
        serial=serial,
        issuer=_name(name),
        subject=_name(name),
        lifetime=(now - CLOCK_SKEW_S, now + CA_LIFETIME_S),
        public_key=public_key,
        extensions=extensions,
        sign=sign,
    )
    return CaCertificate(der=der, name=name, key_id=key_id)


def leaf_certificate(
    *, ca: CaCertificate, subject: str | bytes, public_key: Point, serial: int, now: float, sign: Sign
) -> bytes:
    """A server certificate for a DNS name (`str`) or a packed IP address (`bytes`, 4 or 16)."""
    if isinstance(subject, str):
        general_name = _der(0x82, subject.encode("ascii"))
        # ub-common-name is 64 characters (RFC 5280 appendix A); clients look at the SAN alone.
        common_name = subject if len(subject) <= 64 else "cloister"
    else:
        general_name = _der(0x87, subject)
        common_name = "cloister"
    extensions = (
        _extension(_SUBJECT_ALT_NAME, _sequence(general_name)),
        _extension(_BASIC_CONSTRAINTS, _sequence(), critical=True),
        _extension(_KEY_USAGE, _der(_BIT_STRING, b"\x07\x80"), critical=True),  # digitalSignature
        _extension(_EXTENDED_KEY_USAGE, _sequence(_oid(_SERVER_AUTH))),
        _extension(_SUBJECT_KEY_ID, _der(_OCTET_STRING, _key_id(public_key))),
        _extension(_AUTHORITY_KEY_ID, _sequence(_der(0x80, ca.key_id))),
    )
    return _certificate(
        serial=serial,
        issuer=_name(ca.name),
        subject=_name(common_name),
        lifetime=(now - CLOCK_SKEW_S, now - CLOCK_SKEW_S + LEAF_LIFETIME_S),
        public_key=public_key,
        extensions=extensions,
        sign=sign,
    )


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """PEM text (RFC 7468) of one structure."""
    text = b2a_base64(der, newline=False)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())


def _certificate(
    *,
    serial: int,
    issuer: bytes,
    subject: bytes,
    lifetime: tuple[float, float],
    public_key: Point,
    extensions: tuple[bytes, ...],
    sign: Sign,
) -> bytes:
    algorithm = _sequence(_oid(_ECDSA_SHA256))
    body = _sequence(
        _der(0xA0, _integer(2)),  # version 3
        _integer(serial),
        algorithm,
        issuer,
        _sequence(_time(lifetime[0]), _time(lifetime[1])),
        subject,
        _public_key_info(public_key),
        _der(0xA3, _sequence(*extensions)),
    )
    return _sequence(body, algorithm, _der(_BIT_STRING, b"\x00" + sign(body)))


def _public_key_info(public_key: Point) -> bytes:
    """SubjectPublicKeyInfo with an uncompressed point (RFC 5480 section 2).

    Encoded here, as importing `cryptography`'s serialization takes longer than all else that the CA needs.
    """
    point = b"\x00\x04" + public_key[0].to_bytes(32, "big") + public_key[1].to_bytes(32, "big")
    return _sequence(_sequence(_oid(_EC_PUBLIC_KEY), _oid(_PRIME256V1)), _der(_BIT_STRING, point))


def _key_id(public_key: Point) -> bytes:
    """Any unique value will do (RFC 5280 section 4.2.1.2): half of a coordinate, which needs no hash."""
    return public_key[0].to_bytes(32, "big")[:20]


def _extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    flag = _der(_BOOLEAN, b"\xff") if critical else b""
    return _sequence(_oid(oid), flag, _der(_OCTET_STRING, value))


def _name(common_name: str) -> bytes:
    attribute = _sequence(_oid(_COMMON_NAME), _der(_UTF8, common_name.encode()))
    return _sequence(_der(_SET, attribute))


def _time(seconds: float) -> bytes:
    """UTCTime until 2049, GeneralizedTime after (RFC 5280 section 4.1.2.5)."""
    moment = time.gmtime(seconds)
    if moment.tm_year < 2050:
        return _der(0x17, time.strftime("%y%m%d%H%M%SZ", moment).encode())
    return _der(0x18, time.strftime("%Y%m%d%H%M%SZ", moment).encode())


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    data = bytearray([first * 40 + second])
    for part in rest:
        digits = [part & 0x7F]
        while part := part >> 7:
            digits.append(part & 0x7F | 0x80)
        data += bytes(reversed(digits))
    return _der(_OID, bytes(data))


def _integer(value: int) -> bytes:
    """A non-negative INTEGER."""
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _sequence(*parts: bytes) -> bytes:
    return _der(_SEQUENCE, b"".join(parts))


def _der(tag: int, value: bytes) -> bytes:
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)) + value
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + value
