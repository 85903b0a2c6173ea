"""What searches and changes bodies: the same however they are cut, bounded, and never with a value in the result."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as some

from cloister.credentials import decode
from cloister.credentials.placeholder import Scanner
from cloister.credentials.redact import Redactor, spellings
from cloister.credentials.replace import Replacer
from cloister.errors import UntrustedInputError
from cloister.secret import Secret
from tests.fuzz.streams import CUTS, Parts, byte_by_byte, cut, heard_alike, mutated

VALUES = (b"abcabcabd", b"aaaaaaab", b"s3cret/+=value \xc3\xa9", b"ghp_0123456789", b"%41%42abcdef")
ENCODERS = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": brotli.compress,
    b"zstd": zstandard.compress,
}


def _decoded(name: bytes, parts: Parts) -> bytes | None:
    """None if it is not what it says."""
    decoder = decode.decoder(name)
    assert decoder is not None
    made = b""
    try:
        for part in parts:
            for piece in decoder.feed(part):
                assert len(piece) <= decode.PIECE_BYTES
                made += piece
        decoder.end()
    except UntrustedInputError as error:
        assert str(error).isprintable()
        return None
    return made


@pytest.mark.parametrize("name", ENCODERS)
@given(data=some.binary(max_size=2000), cuts=CUTS)
def test_what_was_encoded_is_decoded(name: bytes, data: bytes, cuts: list[int]) -> None:
    assert heard_alike(lambda parts: _decoded(name, parts), ENCODERS[name](data), cuts) == data


@pytest.mark.parametrize("name", ENCODERS)
@given(data=some.data())
def test_damaged_encodings_end_in_an_error_or_in_the_same(name: bytes, data: some.DataObject) -> None:
    """A cut may make an error come earlier, so only what came through whole is compared."""
    damaged = data.draw(mutated(some.binary(max_size=300).map(ENCODERS[name]), (b"\0", b"\xff" * 4)))
    whole = _decoded(name, [damaged])
    assert _decoded(name, cut(damaged, data.draw(CUTS))) == whole
    assert _decoded(name, byte_by_byte(damaged)) == whole


def _broken(text: bytes, width: int) -> bytes:
    """With a line's end in it, or some."""
    if not width:
        return text
    size, ending = (32, 3, 17, 1)[width - 1], (b"\n", b"\r\n", b"\\n", b"\n\n")[width - 1]
    return ending.join(text[at : at + size] for at in range(0, len(text), size))


def _texts() -> some.SearchStrategy[tuple[list[Secret], bytes]]:
    """Some secrets, and a text in which some of their spellings stand, whole or begun."""

    def text(values: list[bytes], numbers: list[tuple[int, int, bytes]]) -> tuple[list[Secret], bytes]:
        secrets = [Secret(str(number), value) for number, value in enumerate(values)]
        known = list(spellings(secrets).needles)
        return secrets, b"".join(
            _broken(known[one % len(known)][: 1 + length % 40], one % 5) + more
            for one, length, more in numbers
        )

    number = some.integers(min_value=0, max_value=1000)
    pieces = some.lists(some.tuples(number, number, some.binary(max_size=4)), max_size=8)
    return some.builds(
        text, some.lists(some.sampled_from(VALUES), min_size=1, max_size=3, unique=True), pieces
    )


@given(_texts(), CUTS)
def test_no_spelling_of_a_value_comes_through(texts: tuple[list[Secret], bytes], cuts: list[int]) -> None:
    secrets, data = texts

    def redacted(parts: Parts) -> bytes:
        redactor = Redactor(secrets)
        return b"".join([*[redactor.feed(part) for part in parts], redactor.end()])

    whole = redacted([data])
    for made in (whole, redacted(cut(data, cuts)), redacted(byte_by_byte(data))):
        assert made == whole
        assert len(made) == len(data)
        assert not any(needle in made for needle in spellings(secrets).needles)


@given(some.lists(some.sampled_from([b"PLACEHOLDER", b"PLACE", b"P", b"x"]), max_size=8).map(b"".join), CUTS)
def test_placeholders_are_replaced_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    def replaced(parts: Parts) -> bytes:
        replacer = Replacer([(b"PLACEHOLDER", Secret("it", b"a/b"))], content_type=b"text/plain")
        return b"".join([*[replacer.feed(part) for part in parts], replacer.end()])

    assert heard_alike(replaced, data, cuts) == data.replace(b"PLACEHOLDER", b"a/b")


def _spelled(placeholder: str) -> Iterator[bytes]:
    yield placeholder.encode()
    yield "".join(f"%{ord(char):02x}" for char in placeholder).encode()
    yield "".join(f"\\u{ord(char):04x}" for char in placeholder).encode()
    yield from Scanner({"it": placeholder.encode()})._needles


SPELLED = list(_spelled("cloister_placeholder_0123"))


@given(some.binary(max_size=40), some.sampled_from(SPELLED), some.binary(max_size=40), CUTS)
def test_a_placeholder_is_found_however_it_is_cut(
    before: bytes, spelled: bytes, behind: bytes, cuts: list[int]
) -> None:
    def found(parts: Parts) -> frozenset[str]:
        scanner = Scanner({"it": b"cloister_placeholder_0123", "other": b"cloister_placeholder_9999"})
        for part in parts:
            scanner.feed(part)
        return scanner.found

    before = before.rstrip(b"%\\")  # these would change what comes behind
    assert heard_alike(found, before + spelled + behind, cuts) == {"it"}


@given(some.binary(max_size=300), CUTS)
def test_a_placeholder_is_not_found_where_none_is(data: bytes, cuts: list[int]) -> None:
    scanner = Scanner({"it": b"cloister_placeholder_0123"})
    for part in cut(data, cuts):
        assert not scanner.feed(part)
