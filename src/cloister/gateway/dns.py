"""The DNS wire format (RFC 1035, EDNS RFC 6891): read one question, render one answer.

Rule 1: strict. One uncompressed question, at most an OPT record besides, and not a byte more.
Rule 2: an answer repeats the question as it was sent (0x20 case games included) and always fits 512 bytes.
Rule 3: which name gets which answer is decided elsewhere.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cloister.errors import UntrustedInputError

A, AAAA, ANY = 1, 28, 255
IN = 1
NOERROR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 2, 3, 4, 5
FILTERED = 17  # Extended DNS Error "Filtered", RFC 8914 section 4.18
STANDARD_QUERY = 0

_OPT = 41
_ZONE_TRANSFERS = range(
    249, 256
)  # TKEY … ANY: questions about a zone or a transaction, not a name (RFC 6895)
_NAME_LIMIT_BYTES = 255
_REASON_LIMIT_BYTES = 160
_UDP_PAYLOAD = 1232  # what we advertise (DNS flag day 2020)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question. `untrusted_name` is printable ASCII without the final dot; empty for the root."""

    id: int
    opcode: int
    recursion_desired: bool
    question: bytes  # as sent: name, type and class
    untrusted_name: str
    kind: int
    klass: int
    edns: bool

    @property
    def about_a_name(self) -> bool:
        """False for zone transfers, ANY, other classes (CHAOS) and updates: refused whatever the name."""
        return self.opcode == STANDARD_QUERY and self.klass == IN and self.kind not in _ZONE_TRANSFERS


def parse(untrusted: bytes) -> Query:
    """Read a query. UntrustedInputError for anything that is not exactly one."""
    if len(untrusted) < 12:
        raise UntrustedInputError("DNS message is too short")
    identity, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", untrusted)
    if flags & 0x8000:
        raise UntrustedInputError("DNS message is an answer, not a question")
    if (questions, answers, authorities) != (1, 0, 0) or additional > 1:
        raise UntrustedInputError("DNS message does not hold exactly one question")
    name, at = _name(untrusted)
    if len(untrusted) < at + 4:
        raise UntrustedInputError("DNS question is truncated")
    kind, klass = struct.unpack_from("!2H", untrusted, at)
    question = untrusted[12 : at + 4]
    if additional:
        _check_opt(untrusted[at + 4 :])
    elif len(untrusted) != at + 4:
        raise UntrustedInputError("bytes after the DNS question")
    return Query(
        id=identity,
        opcode=flags >> 11 & 15,
        recursion_desired=bool(flags & 0x0100),
        question=question,
        untrusted_name=name,
        kind=kind,
        klass=klass,
        edns=bool(additional),
    )


def answer(query: Query, *, address: bytes | None = None, ttl_s: int = 0) -> bytes:
    """NOERROR with one address (4 or 16 bytes) of the kind asked for, or without any (NODATA)."""
    record = b""
    if address is not None:
        record = struct.pack("!3HIH", 0xC00C, query.kind, IN, ttl_s, len(address)) + address
    return _message(query, NOERROR, record)


def refusal(query: Query, *, code: int, reason: str) -> bytes:
    """An answer without records, and why, for those who asked with EDNS (RFC 8914)."""
    text = reason.encode("ascii", "replace")[:_REASON_LIMIT_BYTES]
    return _message(query, code, b"", struct.pack("!3H", 15, 2 + len(text), FILTERED) + text)


def _message(query: Query, code: int, record: bytes, options: bytes = b"") -> bytes:
    # QR and RA; no AA: we are a resolver in the sandbox's eyes
    flags = 0x8080 | query.opcode << 11 | (0x0100 if query.recursion_desired else 0) | code
    opt = struct.pack("!BHHIH", 0, _OPT, _UDP_PAYLOAD, 0, len(options)) + options if query.edns else b""
    header = struct.pack("!6H", query.id, flags, 1, 1 if record else 0, 0, 1 if query.edns else 0)
    return header + query.question + record + opt


def _name(untrusted: bytes) -> tuple[str, int]:
    """The name of the question and the offset after it. Compression has nothing to point at here."""
    labels = []
    at = 12
    while True:
        if at >= len(untrusted):
            raise UntrustedInputError("DNS name is truncated")
        size = untrusted[at]
        if size == 0:
            break
        if size > 63:
            raise UntrustedInputError("compressed or unknown label in a DNS question")
        label = untrusted[at + 1 : at + 1 + size]
        if len(label) < size:
            raise UntrustedInputError("DNS name is truncated")
        if not all(0x21 <= byte <= 0x7E for byte in label) or b"." in label:
            raise UntrustedInputError("a label of the DNS question holds a dot or an unprintable byte")
        labels.append(label.decode("ascii"))
        at += 1 + size
        if at + 1 - 12 > _NAME_LIMIT_BYTES:
            raise UntrustedInputError("DNS name is longer than 255 bytes")
    return ".".join(labels), at + 1


def _check_opt(untrusted: bytes) -> None:
    """The additional record must be one OPT of EDNS version 0 that ends the message."""
    if len(untrusted) < 11:
        raise UntrustedInputError("DNS additional record is truncated")
    root, kind, _, extended, size = struct.unpack_from("!BHHIH", untrusted)
    if root != 0 or kind != _OPT or extended >> 16 & 0xFF != 0:
        raise UntrustedInputError("DNS additional record is not EDNS version 0")
    if len(untrusted) != 11 + size:
        raise UntrustedInputError("bytes after the DNS message")
