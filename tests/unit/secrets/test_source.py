"""What a source's text may be, and what is refused of the values that come from one (issue: bad input; ID-10)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cloister.errors import CredentialError
from cloister.secrets.source import SourceError, parse
from cloister.types import AwsSignature, Binding, Credential, HostPattern, QueryInjection, Reach
from tests.unit.secrets.conftest import World

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/secret_sources.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"] or "empty")
def test_texts(case: dict[str, str]) -> None:
    if "error" not in case:
        assert str(parse(case["text"])) == case["text"]
        return
    with pytest.raises(SourceError) as caught:
        parse(case["text"])
    assert case["error"] in str(caught.value)
    assert caught.value.expected


def test_a_token_in_the_place_of_a_source_is_not_quoted() -> None:
    with pytest.raises(SourceError) as caught:
        parse("ghp_aTokenThatSomebodyPasted")
    assert "ghp_" not in str(caught.value)


GARBAGE = {
    "empty": (b"", "empty"),
    "blank": (b"  \n", "empty"),
    "lines": (b"one\ntwo\n", "2 lines"),
    "two line ends": (b"value\n\n", "2 lines"),
    "carriage return": (b"a\rb", "lines"),
    "nul": (b"a\0b", "NUL"),
    "not utf-8": (b"\xff\xfe", "not UTF-8"),
    "escape": (b"\x1b[31mred", "control characters"),
    "long": (b"x" * (64 * 1024 + 1), "64 KiB"),
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("scheme", ["file", "exec"])
def test_garbage_is_refused_and_never_shown(world: World, name: str, scheme: str) -> None:
    content, expected = GARBAGE[name]
    path = world.secret_file("value", content)
    text = f"file:{path}" if scheme == "file" else f"exec:cat {path}"
    with pytest.raises(CredentialError) as caught:
        world.fetch(text)
    message = str(caught.value)
    assert 'credential "thing"' in message
    assert expected in message
    assert text in caught.value.details
    assert "one" not in caught.value.brief.replace("one line", "")
    assert "red" not in caught.value.brief.replace("credential", "")


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_end_of_the_line_is_no_part_of_a_value(world: World, end: bytes) -> None:
    path = world.secret_file("value", b" s3cret \xc3\xa4" + end)
    assert world.value(f"file:{path}") == b" s3cret \xc3\xa4"


def test_env(world: World) -> None:
    world.environ["TOKEN"] = "t0ken"
    assert world.value("env:TOKEN") == b"t0ken"
    with pytest.raises(CredentialError, match="has no OTHER"):
        world.fetch("env:OTHER")
    world.environ["EMPTY"] = ""
    with pytest.raises(CredentialError, match="empty"):
        world.fetch("env:EMPTY")
    world.environ["RAW"] = "a\udcffb"
    with pytest.raises(CredentialError, match="not UTF-8"):
        world.fetch("env:RAW")


def credential(source: str, *, signs: bool) -> Credential:
    pattern = HostPattern(reach=Reach.EXACT, name="api.example.com")
    injection = AwsSignature() if signs else QueryInjection(name="k")
    binding = Binding(pattern=pattern, injection=injection)
    return Credential(name="keys", source=source, bindings=(binding,), placeholder="cloister_x")


def test_keys_of_aws_come_from_any_source(world: World) -> None:
    from cloister.secrets.source import value_of

    document = b'{\n "Version": 1,\n "AccessKeyId": "AKIA1",\n "SecretAccessKey": "s/1+",\n "SessionToken": "tok",\n "Expiration": "2030-01-02T03:04:05Z"\n}\n'
    path = world.secret_file("keys.json", document)
    value = value_of(credential(f"file:{path}", signs=True), world.context())
    assert b'"SecretAccessKey": "s/1+"' in value.secret.reveal()
    assert value.expires_at == 1893553445.0
    assert [part.reveal() for part in value.parts] == [b"s/1+", b"tok"]
    assert [one.reveal() for one in value.confidential][1:] == [b"s/1+", b"tok"]
    with pytest.raises(CredentialError, match="7 lines"):
        value_of(credential(f"file:{path}", signs=False), world.context())
    path.write_bytes(b"AKIA1:s/1+")
    with pytest.raises(CredentialError, match="expected JSON with AccessKeyId"):
        value_of(credential(f"file:{path}", signs=True), world.context())


def test_a_source_that_is_wrong_only_now(world: World) -> None:
    from cloister.secrets.source import value_of

    with pytest.raises(CredentialError, match='credential "keys": there is no source "gone:"'):
        value_of(credential("gone:x", signs=False), world.context())
