"""`cloister token github-app`: the same source as a credential's, and the token alone on standard output."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from cloister.cli import token
from cloister.errors import CredentialError, UsageError
from tests.unit.secrets.test_github_app import PEM, TOKENS, Api, reply


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    token.configure(parser)
    return token.execute(parser.parse_args(["github-app", *words]))


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "a key & more.pem"
    path.write_bytes(PEM)
    path.chmod(0o600)
    return f"file:{path}"


def test_it_prints_just_the_token(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Api(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(api.ca))
    words = ["acme/widget", "--app-id", "12", "--key", key, "--api", api.url]
    assert call(*words, "--permission", "contents=write", "--permission", "issues=read") == 0
    assert capsys.readouterr() == ("ghs_t0ken\n", "")
    assert json.loads(api.seen[1][3])["permissions"] == {"contents": "write", "issues": "read"}
    api.replies[TOKENS] = reply({}, 422)
    with pytest.raises(CredentialError, match='credential "github-app:acme/widget" cannot be had') as caught:
        call(*words)
    assert caught.value.exit_code == 125
    assert capsys.readouterr().out == ""
    api.server.shutdown()
    api.server.server_close()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["acme"], "names no repository"),
        (["acme/widget?api=https://x"], "names no repository"),
        (["acme/widget", "--app-id", "x&y"], "no number"),
        (["acme/widget", "--key", "nothing"], "names no source"),
        (["acme/widget", "--permission", "contents"], "'contents' is no permission"),
        (["acme/widget", "--permission", "contents=all"], "is no permission"),
        (["acme/widget", "--permission", "a=read,b=admin"], "is no permission"),
        (["acme/widget", "--api", "http://x"], "https://"),
    ],
)
def test_what_is_wrong_is_a_usage_error(words: list[str], error: str) -> None:
    with pytest.raises(UsageError, match=error):
        call(*words)
