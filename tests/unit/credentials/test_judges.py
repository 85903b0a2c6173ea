"""Placeholders, injection, replacement, redaction, decoding: each fed whole, byte by byte, and with what an attacker would try."""

from __future__ import annotations

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cloister.credentials import decode, placeholder
from cloister.credentials.inject import UnfitSecretError, inject, withhold
from cloister.credentials.placeholder import SHAPES, Scanner, make
from cloister.credentials.redact import Redactor, redact_head
from cloister.credentials.replace import Replacer, replace_in_head
from cloister.errors import UntrustedInputError
from cloister.messages import RequestHead, ResponseHead
from cloister.secret import Secret
from cloister.types import BasicInjection, HeaderInjection, Injection, QueryInjection

HOLDER = b"cloister_placeholder_abcdefgh"
VALUE = b'p/w+"quoted"%&='
SECRET = Secret("api", VALUE)
BEARER = HeaderInjection(name="authorization", template="Bearer {}")


def request(path: str = "/", query: str | None = None, **headers: str) -> RequestHead:
    pairs = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return RequestHead(method="GET", untrusted_authority="a.example", path=path, query=query, headers=pairs)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_placeholder_is_stable_unguessable_and_plain(shape: str) -> None:
    one, other = make(shape, b"seed"), make(shape, b"other")
    assert one == make(shape, b"seed")
    assert one != other
    assert len(one) >= 16
    assert quote(one, safe="") == one
    assert json.dumps(one) == f'"{one}"'


def test_a_jwt_decodes() -> None:
    head, body, _ = make("jwt", b"x").split(".")
    assert json.loads(base64.urlsafe_b64decode(head + "=="))["alg"] == "HS256"
    assert json.loads(base64.urlsafe_b64decode(body + "=="))["sub"] == "cloister"


SPELLINGS: list[Callable[[bytes], bytes]] = [
    lambda text: text,
    lambda text: b"".join(b"%%%02x" % byte for byte in text),
    lambda text: b"".join(b"%%%02X" % byte for byte in text),
    lambda text: text[:5] + b"".join(b"%%%02x" % byte for byte in text[5:9]) + text[9:],
    lambda text: b"".join(b"\\u%04x" % byte for byte in text),
    lambda text: text[:3] + b"\\u%04X" % text[3] + text[4:],
    base64.b64encode,
    lambda text: base64.b64encode(b"a" + text),
    lambda text: base64.urlsafe_b64encode(b"user:" + text + b">?"),
]


@pytest.mark.parametrize("spelling", range(len(SPELLINGS)))
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_id_5_a_placeholder_is_found_in_every_spelling(spelling: int, step: int) -> None:
    data = b"before " + SPELLINGS[spelling](HOLDER) + b" behind"
    scanner = Scanner({"api": HOLDER})
    for at in range(0, len(data), step):
        scanner.feed(data[at : at + step])
    assert scanner.found == {"api"}


def test_what_only_begins_like_one_is_not_found() -> None:
    assert not Scanner({"api": HOLDER}).feed(HOLDER[:-1] + b"x" + HOLDER[1:])


def test_a_head_is_looked_at_everywhere() -> None:
    basic = base64.b64encode(b"x:" + HOLDER).decode()
    text = HOLDER.decode()
    for head in (
        request(f"/{text}"),
        request(query=f"a={text}"),
        request(x_key=text),
        request(authorization=f"Basic {basic}"),
        request(cookie=f"a=b; c={text}"),
    ):
        assert Scanner({"api": HOLDER}).find_in_head(head) == {"api"}


def test_id_7_what_the_client_put_there_is_dropped() -> None:
    head = request(authorization="Bearer mine", x_other="kept", query=None)
    made = inject(head, BEARER, Secret("api", b"real"))
    assert made.headers == ((b"x-other", b"kept"), (b"authorization", b"Bearer real"))
    made = inject(request(query="key=1&k%65y=2&other=3"), QueryInjection(name="key"), Secret("api", b"a b&"))
    assert made.query == "other=3&key=a%20b%26"
    made = inject(head, BasicInjection(user="me"), Secret("api", b"pw"))
    assert dict(made.headers)[b"authorization"] == b"Basic " + base64.b64encode(b"me:pw")


@pytest.mark.parametrize("value", [b"", b"a\r\nb", b"a\nb", b"a\0b", b" a", b"\xff", b"a\x7f"])
@pytest.mark.parametrize("injection", [BEARER, BasicInjection(user="me"), QueryInjection(name="k")])
def test_id_10_a_value_that_does_not_fit_is_an_error_without_it(value: bytes, injection: Injection) -> None:
    with pytest.raises(UnfitSecretError) as caught:
        inject(request(), injection, Secret("api", value))
    assert '"api"' in str(caught.value)
    assert len(value) < 3 or repr(value)[2:-1] not in caught.value.brief


def test_id_7_a_header_that_a_server_may_take_for_the_injected_one_is_dropped() -> None:
    head = replace(request(), headers=((b"x_api_key", b"mine"), (b"x_api", b"kept")))
    made = inject(head, HeaderInjection(name="x-api-key", template="{}"), Secret("api", b"real"))
    assert made.headers == ((b"x_api", b"kept"), (b"x-api-key", b"real"))


def test_withholding_leaves_other_values_alone() -> None:
    head = request(authorization=f"Bearer {HOLDER.decode()}")
    assert withhold(head, BEARER, HOLDER).headers == ()
    own = request(authorization="Bearer its-own")
    assert withhold(own, BEARER, HOLDER) == own


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (b"application/json", json.dumps(VALUE.decode())[1:-1].encode()),
        (b"application/vnd.x+json; charset=utf-8", json.dumps(VALUE.decode())[1:-1].encode()),
        (b"application/x-www-form-urlencoded", quote(VALUE, safe="").encode()),
        (b"text/plain", VALUE),
    ],
)
def test_a_body_gets_the_value_as_its_kind_writes_it(kind: bytes, written: bytes, step: int) -> None:
    body = b"x" + HOLDER + b"y" + HOLDER[:-1] + b"z" + HOLDER
    replacer = Replacer([(HOLDER, SECRET)], content_type=kind)
    made = b"".join(replacer.feed(body[at : at + step]) for at in range(0, len(body), step)) + replacer.end()
    assert made == b"x" + written + b"y" + HOLDER[:-1] + b"z" + written


def test_a_head_gets_the_value_in_basic_too() -> None:
    basic = base64.b64encode(b"me:" + HOLDER).decode()
    made = replace_in_head(request(authorization=f"Basic {basic}"), [(HOLDER, Secret("api", b"pw"))])
    assert dict(made.headers)[b"authorization"] == b"Basic " + base64.b64encode(b"me:pw")


ECHOES: list[bytes] = [
    VALUE,
    quote(VALUE, safe="").encode(),
    quote(VALUE, safe="").lower().encode(),
    quote(quote(VALUE, safe=""), safe="").encode(),
    json.dumps(json.dumps(VALUE.decode()))[3:-3].encode(),
    json.dumps(VALUE.decode())[1:-1].encode(),
    json.dumps(VALUE.decode())[1:-1].replace("/", "\\/").encode(),
    VALUE.hex().encode(),
    VALUE.hex().upper().encode(),
    *(
        "".join(form.format(byte) for byte in VALUE).encode()
        for form in (
            "%{:02X}", "%{:02x}", "&#x{:02x};", "&#x{:X};", "&#{};", "&#{:03};", "\\u{:04x}", "\\u{:04X}", "\\x{:02x}", "\\{:03o}",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_id_9_an_echo_is_masked_and_the_length_stays(echo: bytes, step: int) -> None:
    data = b"before " + echo + b" between " + echo[:-1] + b" behind"
    redactor = Redactor([SECRET])
    made = b"".join(redactor.feed(data[at : at + step]) for at in range(0, len(data), step)) + redactor.end()
    assert made == b"before " + b"*" * len(echo) + b" between " + echo[:-1] + b" behind"


@pytest.mark.parametrize("before", [b"", b"u:", b"us:", b"user:"])
def test_id_9_an_echo_in_base64_does_not_give_the_value(before: bytes) -> None:
    secret = Secret("api", b"a-rather-long-secret-value-0123456789")
    data = base64.b64encode(before + secret.reveal() + b" and more")
    made = Redactor([secret]).feed(data)
    assert len(made) <= len(data)
    assert b"********" in made
    kept = base64.b64decode(made.replace(b"*", b"A").ljust(len(data), b"A") + b"==", validate=False)
    assert secret.reveal()[3:-3] not in kept


def lines(text: bytes, width: int, ending: bytes) -> bytes:
    return ending.join(text[at : at + width] for at in range(0, len(text), width))


BREAKS = [
    pytest.param(76, b"\r\n", id="MIME"),
    pytest.param(64, b"\n", id="PEM"),
    pytest.param(64, b"\r\n    ", id="PEM in YAML"),
    pytest.param(60, b"\\n", id="in JSON"),
    pytest.param(76, b"\\r\\n", id="MIME in JSON"),
    pytest.param(32, b"\n", id="short lines"),
]
LENGTHS = {"short": 7, "a token's": 40, "just a line": 57, "two lines": 93, "a key's": 1700}


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("width", "ending"), BREAKS)
def test_id_9_an_echo_in_base64_that_is_broken_into_lines(
    width: int, ending: bytes, length: int, safe: bool
) -> None:
    """At every place of the break, in every alignment, in one piece and in many: at most two characters stay."""
    value = random.Random(length).randbytes(length)  # all characters
    secrets = (Secret("api", value),)
    for before in range(width if length < 100 else 3):
        plain = b"x" * before + value + b" and more"
        written = base64.urlsafe_b64encode(plain) if safe else base64.b64encode(plain)
        data = b"key: " + lines(written, width, ending) + ending
        made = redacted(secrets, data, len(data))
        assert len(made) == len(data)
        stable = range((before * 8 + 5) // 6, (before + length) * 8 // 6)
        places = [5 + at + at // width * len(ending) for at in stable]
        assert bytes(data[place] for place in places) in written  # the test looks where it should
        assert sum(made[place] != ord("*") for place in places) <= 2, before
        assert before % 7 or redacted(secrets, data, 1 if length < 50 else 61) == made, before


def redacted(secrets: tuple[Secret, ...], data: bytes, step: int) -> bytes:
    redactor = Redactor(secrets)
    parts = [redactor.feed(data[at : at + step]) for at in range(0, len(data), step)]
    return b"".join(parts) + redactor.end()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"%b\n\n%b", id="an empty line"),
        pytest.param(b"%b, %b", id="no break"),
        pytest.param(b"%b" + b"\n" + b" " * 300 + b"%b", id="too long a break"),
    ],
)
def test_what_is_no_line_break_joins_nothing(data: bytes) -> None:
    secret = Secret("api", b"a-rather-long-secret-value-0123456789")
    written = base64.b64encode(secret.reveal())
    text = data % (written[:20], written[20:])
    for step in (1, 5, len(text)):
        assert redacted((secret,), text, step) == text


def test_an_event_is_not_held_back_for_a_break() -> None:
    """What ends with an empty line is a whole event of a stream; the last letter begins the value in base64."""
    secrets = (Secret("api", b"a-rather-long-secret-value-0123456789"),)
    written = base64.b64encode(secrets[0].reveal())
    for length in range(1, len(written)):
        event = b"data: " + written[:length] + b"\n\n"
        assert Redactor(secrets).feed(event)[-2:] == (b"\n\n")
    assert Redactor(secrets).feed(b"a line that ends so: " + written[:2] + b"\n").endswith(b"\n")


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"use", b"user", b"user:"])
@pytest.mark.parametrize("small", [False, True])
def test_id_9_an_echo_in_base32_does_not_give_the_value(before: bytes, small: bool) -> None:
    secret = Secret("api", b"a-rather-long-secret-value-0123456789")
    written = base64.b32encode(before + secret.reveal() + b" and more")
    redactor = Redactor([secret])
    made = redactor.feed(written.lower() if small else written) + redactor.end()
    assert len(made) == len(written)
    kept = base64.b32decode(made.upper().replace(b"*", b"A"))
    assert secret.reveal()[2:-2] not in kept
    assert b"long-secret" not in kept


LONG = b"first-value-and-second"
OVERLAPS = [
    ("one begins the other", [b"first-value", LONG], b"x" + LONG + b"y", [(1, 1 + len(LONG))]),
    ("the longer one does not come", [b"first-value", LONG], b"xfirst-value-anyhow", [(1, 12)]),
    ("one is in the other", [b"value-and", LONG], b"x" + LONG, [(1, 1 + len(LONG))]),
    ("the inner one alone", [b"value-and", LONG], b"x-value-and-", [(2, 11)]),
    ("they overlap", [b"first-value", b"value-other"], b"xfirst-value-othery", [(1, 18)]),
    ("they touch", [b"first-value", b"another"], b"xfirst-valueanother", [(1, 19)]),
    ("one overlaps itself", [b"abcabcabc"], b"xabcabcabcabcx", [(1, 13)]),
    ("the end of one begins another", [b"secretaaa", b"aaasecret"], b"xsecretaaasecr", [(1, 10)]),
]


@pytest.mark.parametrize(
    ("values", "data", "masked"), [case[1:] for case in OVERLAPS], ids=[case[0] for case in OVERLAPS]
)
def test_overlapping_values_are_masked_however_they_are_cut(
    values: list[bytes], data: bytes, masked: list[tuple[int, int]]
) -> None:
    expected = bytearray(data)
    for begin, end in masked:
        expected[begin:end] = b"*" * (end - begin)
    secrets = [Secret(str(number), value) for number, value in enumerate(values)]
    for order in (tuple(secrets), tuple(secrets[::-1])):  # tuples: their spellings are kept
        for first in range(len(data) + 1):
            for second in range(first, len(data) + 1):
                redactor = Redactor(order)
                parts = (data[:first], data[first:second], data[second:])
                made = b"".join([*(redactor.feed(part) for part in parts), redactor.end()])
                assert made == bytes(expected), parts


def test_heads_are_masked_everywhere() -> None:
    head = ResponseHead(status=302, headers=((b"location", b"/?t=" + VALUE), (b"set-cookie", b"s=" + VALUE)))
    assert VALUE not in b"".join(value for _, value in redact_head(head, [SECRET]).headers)


def test_nothing_is_held_back_that_cannot_become_a_match() -> None:
    redactor = Redactor([Secret("api", b"secret-value")])
    assert redactor.feed(b"data: hello\n\n") == b"data: hello\n\n"
    assert redactor.feed(b"ends with secr") == b"ends with "
    assert redactor.feed(b"ecy") == b"secrecy"


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_split_gives_the_same(data: bytes, cuts: list[int]) -> None:
    secret = Secret("api", b"abcabcd")
    data = data.replace(b"z", b"abcabcd")
    whole = Redactor([secret])
    expected = whole.feed(data) + whole.end()
    parts = Redactor([secret])
    made, last = b"", 0
    for cut in sorted(cuts):
        made += parts.feed(data[last:cut]) if cut > last else b""
        last = max(last, cut)
    made += parts.feed(data[last:]) + parts.end()
    assert made == expected


ENCODED: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"x-gzip": lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:]),
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstandard.compress,
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("step", [1, 1000])
def test_encodings_are_undone(name: bytes, step: int) -> None:
    data = b"some content " * 50
    coded = ENCODED[name](data)
    decoder = decode.decoder(name)
    assert decoder is not None
    made = b"".join(b"".join(decoder.feed(coded[at : at + step])) for at in range(0, len(coded), step))
    decoder.end()
    assert made == data


@pytest.mark.parametrize("name", ENCODED)
def test_what_is_cut_or_junk_is_an_error(name: bytes) -> None:
    coded = ENCODED[name](b"some content " * 50)
    cut = decode.decoder(name)
    assert cut is not None
    with pytest.raises(UntrustedInputError):
        list(cut.feed(coded[:-3]))
        cut.end()
    junk = decode.decoder(name)
    assert junk is not None
    with pytest.raises(UntrustedInputError):
        list(junk.feed(b"this is nothing of the kind"))
        junk.end()


@pytest.mark.parametrize("name", [b"gzip", b"br", b"zstd"])
def test_a_bomb_comes_in_pieces(name: bytes) -> None:
    bomb = ENCODED[name](bytes(64 << 20))
    assert len(bomb) < 200_000
    decoder = decode.decoder(name)
    assert decoder is not None
    sizes = [len(piece) for piece in decoder.feed(bomb)]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= decode.PIECE_BYTES


def test_chains_and_unknown_encodings() -> None:
    decoder = decode.decoder(b"gzip, br")
    assert decoder is not None
    assert b"".join(decoder.feed(brotli.compress(gzip.compress(b"twice")))) == b"twice"
    assert decode.decoder(b"identity") is None
    for unknown in (b"compress", b"gzip, gzip, gzip"):
        with pytest.raises(UntrustedInputError):
            decode.decoder(unknown)
    assert decode.accept_encoding(b"gzip;q=0, br, compress") == b"br"
    assert decode.accept_encoding(b"") == b"identity"


def test_a_needle_of_chance_is_none() -> None:
    assert Redactor([Secret("short", b"abc")]).feed(b"xabcx") == b"xabcx"
    assert placeholder.stable_base64(b"ab") == ()
