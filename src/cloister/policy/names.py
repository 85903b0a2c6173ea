"""Parse a host name that someone untrusted wrote into the one canonical `Host`.

Rule 1: the result is idempotent: lower-case A-labels, no trailing dot. What is judged is what is dialled.
Rule 2: nothing that any resolver could take for an IP address is a name: decimal, hexadecimal, octal and
        short IPv4 forms are refused by the WHATWG "ends in a number" test, IPv6 by its colons.
Rule 3: raises UntrustedInputError and nothing else, and never quotes the input.
It does not ask whether the name exists, nor whether a policy covers it.
"""

from __future__ import annotations

from cloister.errors import UntrustedInputError
from cloister.types import Host

MAX_NAME = 253  # RFC 1035 section 2.3.4, without the root's dot
MAX_LABEL = 63
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")
_DIGITS = frozenset("0123456789")
_HEX_DIGITS = frozenset("0123456789abcdef")
# The underscore is no host name by RFC 952, but real names hold it (`_acme-challenge`, buckets, CI hosts).
_LABEL_CHARACTERS = _LETTERS | _DIGITS | frozenset("-_")


def parse_host(untrusted_name: str) -> Host:
    """The canonical form of a DNS name, as written in DNS, SNI, `Host` or a configuration."""
    if not untrusted_name:
        raise UntrustedInputError("the host name is empty")
    if len(untrusted_name) > MAX_NAME + 1:  # before IDNA, whose cost grows faster than its input
        raise UntrustedInputError(f"the host name is longer than {MAX_NAME} characters")
    if ":" in untrusted_name or untrusted_name[0] == "[":
        raise UntrustedInputError("the host is an IPv6 address or holds a colon; only names are judged")
    name = untrusted_name.lower() if untrusted_name.isascii() else _ascii_form(untrusted_name)
    name = name[:-1] if name.endswith(".") else name
    if not name:
        raise UntrustedInputError("the host name is empty")
    if len(name) > MAX_NAME:
        raise UntrustedInputError(f"the host name is longer than {MAX_NAME} characters")
    labels = name.split(".")
    for label in labels:
        _check_label(label)
    _check_not_a_number(labels[-1])
    return Host(name)


def parse_host_port(untrusted_text: str, *, default_port: int | None = None) -> tuple[Host, int]:
    """`host:port`, or `host` alone if there is a `default_port`. The port is 1 to 65535, digits only."""
    if untrusted_text.startswith("[") or untrusted_text.count(":") > 1:
        raise UntrustedInputError("the host is an IPv6 address or holds a colon; only names are judged")
    name, colon, port = untrusted_text.partition(":")
    if colon:
        return parse_host(name), parse_port(port)
    if default_port is None:
        raise UntrustedInputError("the port is missing")
    return parse_host(name), default_port


def parse_port(untrusted_port: str) -> int:
    """1 to 65535 in plain decimal: no sign, no leading zero, no space, no other script's digits."""
    plain = 1 <= len(untrusted_port) <= 5 and set(untrusted_port) <= _DIGITS and untrusted_port[0] != "0"
    if not plain or int(untrusted_port) > 65535:
        raise UntrustedInputError("the port is not a number from 1 to 65535")
    return int(untrusted_port)


def _ascii_form(untrusted_name: str) -> str:
    """Unicode to A-labels: UTS 46 mapping (case, full-width forms, ideographic dots), then IDNA 2008."""
    import idna  # its tables take milliseconds; most names are ASCII

    try:
        mapped = idna.uts46_remap(untrusted_name, std3_rules=False, transitional=False)
        labels = [
            label if label.isascii() else idna.alabel(label).decode("ascii") for label in mapped.split(".")
        ]
    except (ValueError, IndexError, OverflowError):  # IDNAError is a UnicodeError, which is a ValueError
        raise UntrustedInputError("the host name is not valid international text (IDNA 2008)") from None
    return ".".join(labels).lower()


def _check_label(label: str) -> None:
    if not label:
        raise UntrustedInputError("the host name has an empty label (two dots, or a dot in front)")
    if len(label) > MAX_LABEL:
        raise UntrustedInputError(f"a label of the host name is longer than {MAX_LABEL} characters")
    if not _LABEL_CHARACTERS.issuperset(label):
        raise UntrustedInputError(
            "the host name holds a character other than letters, digits, '-', '_' and '.'"
        )
    if label[0] == "-" or label[-1] == "-":
        raise UntrustedInputError("a label of the host name starts or ends with a hyphen")


def _check_not_a_number(last_label: str) -> None:
    """https://url.spec.whatwg.org/#ends-in-a-number-checker, and stricter: the last label needs a letter."""
    hexadecimal = last_label.startswith("0x") and _HEX_DIGITS.issuperset(last_label[2:])
    if hexadecimal or _LETTERS.isdisjoint(last_label):
        raise UntrustedInputError("the host is an IP address or ends in a number; only names are judged")
