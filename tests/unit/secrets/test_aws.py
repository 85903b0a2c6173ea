"""AWS: command lines, keys of another source, garbage in the tools' answers."""

from __future__ import annotations

import json

import pytest

from cloister.errors import CredentialError
from tests.unit.secrets.conftest import World

ROLE = "arn:aws:iam::123456789012:role/agent"
KEYS = {"AccessKeyId": "ASIA1", "SecretAccessKey": "s/1+=", "SessionToken": "tok=="}
END = "2030-01-02T03:04:05+00:00"

LINES = {
    "aws-sts:profile/dev": (
        "aws", ["configure", "export-credentials", "--profile", "dev", "--format", "process"], {"Version": 1},
    ),
    "aws-sts:vault/dev?duration=3600": ("aws-vault", ["exec", "--json", "--duration=3600s", "dev"], {"Version": 1}),
    f"aws-sts:{ROLE}": (
        "aws", ["sts", "assume-role", "--output", "json", "--role-session-name", "cloister", "--role-arn", ROLE], None,
    ),
    f"aws-sts:{ROLE}?profile=dev&duration=900": (
        "aws",
        ["sts", "assume-role", "--output", "json", "--role-session-name", "cloister", "--duration-seconds", "900",
         "--profile", "dev", "--role-arn", ROLE],
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", LINES)
def test_command_lines_and_what_is_made_of_the_answers(world: World, text: str) -> None:
    name, argv, plain = LINES[text]
    keys = KEYS | {"Expiration": END}
    answer = {**plain, **keys} if plain else {"Credentials": keys, "AssumedRoleUser": {"Arn": "x"}}
    world.secret_file("answer", json.dumps(answer, indent=4).encode())
    world.program(name, f"cat {world.home}/answer")
    value = world.fetch(text)
    assert world.argv(name) == argv
    assert json.loads(value.secret.reveal()) == {"Version": 1, **keys}
    assert value.expires_at == 1893553445.0
    assert [part.reveal() for part in value.parts] == [b"s/1+=", b"tok=="]


def test_keys_of_another_source_are_in_no_environment_and_no_argument(world: World) -> None:
    world.secret_file(
        "base.json", json.dumps({"AccessKeyId": "AKIA2", "SecretAccessKey": "base-s3cret"}).encode()
    )
    world.environ |= {"AWS_PROFILE": "other", "AWS_ACCESS_KEY_ID": "AKIA9", "AWS_SESSION_TOKEN": "old"}
    world.secret_file("answer", json.dumps({"Credentials": KEYS | {"Expiration": END}}).encode())
    world.program(
        "aws",
        f'env > {world.home}/env; cat "$AWS_SHARED_CREDENTIALS_FILE" > {world.home}/file; cat {world.home}/answer',
    )
    value = world.fetch(f"aws-sts:{ROLE}?source=file:~/base.json")
    assert b"ASIA1" in value.secret.reveal()
    environment = (world.home / "env").read_text()
    assert "base-s3cret" not in environment + str(world.argv("aws"))
    assert not any(name in environment for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"))
    assert (world.home / "file").read_text() == (
        "[default]\naws_access_key_id = AKIA2\naws_secret_access_key = base-s3cret\n"
    )


def test_a_base_key_in_the_errors_of_aws_is_masked(world: World) -> None:
    world.secret_file(
        "base.json", json.dumps({"AccessKeyId": "AKIA2", "SecretAccessKey": "base-s3cret"}).encode()
    )
    world.program("aws", 'echo "denied for base-s3cret" >&2; exit 254')
    with pytest.raises(CredentialError) as caught:
        world.fetch(f"aws-sts:{ROLE}?source=file:~/base.json")
    assert "it said: denied for ***" in caught.value.details
    assert "(exit code 254)" in caught.value.brief


GARBAGE = [
    "", "[]", "null", "7", '"AKIA"', "{}", '{"AccessKeyId": "A"}', '{"AccessKeyId": 1, "SecretAccessKey": "b"}',
    '{"AccessKeyId": "A", "SecretAccessKey": "b\\n[x]"}', '{"AccessKeyId": "A", "SecretAccessKey": "b", "Expiration": 5}',
    '{"AccessKeyId": "A", "SecretAccessKey": "b", "Expiration": "soon"}', '{"Credentials": []}', "AKIA s3cret",
]  # fmt: skip


@pytest.mark.parametrize("answer", GARBAGE)
def test_garbage(world: World, answer: str) -> None:
    world.secret_file("answer", answer.encode())
    world.program("aws", f"cat {world.home}/answer")
    with pytest.raises(CredentialError, match="expected JSON with AccessKeyId and SecretAccessKey") as caught:
        world.fetch("aws-sts:profile/dev")
    assert "s3cret" not in str(caught.value)
