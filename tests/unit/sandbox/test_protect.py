from __future__ import annotations

import pytest

from cloister.sandbox import protect


@pytest.mark.parametrize(
    "name",
    [".env", ".env.local", ".env.production", ".env.test.local", "prod.env", ".netrc", "id_rsa", "a.p12", "x.tfstate",
     ".envrc", ".git-credentials", "store.jks", ".credentials.json"],
)  # fmt: skip
def test_secret_names(name: str) -> None:
    assert protect.is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [".env.example", ".env.sample", ".env.template", ".env.dist", ".env.test", "example.env", "env", "environment",
     "id_rsa.pub", "main.tf", "keys.py", ".environment"],
)  # fmt: skip
def test_harmless_names(name: str) -> None:
    assert not protect.is_secret_name(name)


@pytest.mark.parametrize(
    ("name", "start", "secret"),
    [
        ("a.pem", b"-----BEGIN RSA PRIVATE KEY-----", True),
        ("a.pem", b"-----BEGIN CERTIFICATE-----", False),
        ("a.key", b"-----BEGIN OPENSSH PRIVATE KEY-----", True),
        (".npmrc", b"//r.example/:_authToken=abc", True),
        (".npmrc", b"//r.example/:_authToken=${NPM_TOKEN}", False),
        (".npmrc", b"registry=https://r.example", False),
        ("service-account.json", b'{"private_key": "x"}', True),
        ("my-credentials.json", b"{}", False),
    ],
)
def test_content_decides(name: str, start: bytes, secret: bool) -> None:
    assert protect.may_be_secret(name)
    assert protect.is_secret_content(name, start) is secret


@pytest.mark.parametrize(
    ("path", "globs", "matched"),
    [
        ("tests/.env", ("tests/.env",), True),
        ("tests/.env", (".env",), True),
        ("tests/.env", ("*.env",), True),
        ("tests/.env", ("*/.env",), True),
        ("a/b/.env", ("*/.env",), False),
        ("a/b/.env", ("**/.env",), True),
        (".env", ("**/.env",), True),
        (".env", (), False),
        (".env", ("tests/.env",), False),
        ("a/b/c.pem", ("a/**",), True),
        ("x/a/b/c.pem", ("a/**",), False),
        ("a.env", ("a?env",), True),
        ("abenv", ("a[.]env",), False),
    ],
)
def test_unmask_globs(path: str, globs: tuple[str, ...], matched: bool) -> None:
    assert protect.matches(path, globs) is matched


def test_git_directories() -> None:
    assert protect.is_git_directory({"HEAD", "objects", "refs", "x"})
    assert protect.is_git_directory({"HEAD", "commondir"})
    assert not protect.is_git_directory({"HEAD", "objects"})


def test_placeholders_are_protected_names() -> None:
    for name in protect.PLACEHOLDERS:
        known = protect.is_protected(name, parent="", directory=False)
        assert known or name == ".git"
