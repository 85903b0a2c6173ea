from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloister.sandbox import gitconfig
from cloister.sandbox.gitconfig import Entry


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[core]\n\thooksPath = .husky/_\n", Entry("core", "", "hookspath", ".husky/_")),
        ("[CORE] HooksPath=a\n", Entry("core", "", "hookspath", "a")),
        ('[includeIf "gitdir:~/x]"]\n path = "a b" # c\n', Entry("includeif", "gitdir:~/x]", "path", "a b")),
        ('[remote "a\\"b"]\nurl = x ; y\n', Entry("remote", 'a"b', "url", "x")),
        ("[core]\n\tbare\n", Entry("core", "", "bare", "true")),
        ("[core]\n\teditor = a \\\n  b\n", Entry("core", "", "editor", "a   b")),
        ("[branch.main]\n\tremote = o\n", Entry("branch", "main", "remote", "o")),
        ("[core]\r\n\tbare = no\r\n", Entry("core", "", "bare", "no")),
        ("[core]\n\teditor = a \\\n", Entry("core", "", "editor", "a")),
        ("[core]\n\thooksPath = .husky\0x\n", Entry("core", "", "hookspath", ".husky")),
        ('[core "hookspath\0y"]\n\tx = .husky\n', Entry("core", "", "hookspath", ".husky")),
        ("\ufeff[core]\n\thooksPath = .husky\n", Entry("core", "", "hookspath", ".husky")),
        ('[a "b.c\0"]\n\tx = y\n', Entry("a", "b", "c", "y")),
    ],
)
def test_entries(text: str, expected: Entry) -> None:
    assert gitconfig.entries(text) == [expected]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\turl = https://user:token@host/x.git", "\turl = https://host/x.git"),
        ("\turl = https://token@host/x.git", "\turl = https://host/x.git"),
        ("\turl = https://host/x@y.git", "\turl = https://host/x@y.git"),
        ("\turl = git@host:x.git", "\turl = git@host:x.git"),
        ("\turl = ssh://git@host/x.git", "\turl = ssh://git@host/x.git"),
        ('[url "https://tok@host/"]', '[url "https://host/"]'),
        ("\tproxy = http://a:b@p:1 http://c@d", "\tproxy = http://p:1 http://d"),
        ("\textraheader = AUTHORIZATION: basic c2VjcmV0", "\t# cloister: a credential stood here"),
        ("[http] extraHeader = x", "\t# cloister: a credential stood here"),
        ("\tsmtpPass = x", "\t# cloister: a credential stood here"),
        ("\textraheader = \\\n AUTHORIZATION: x", "\t# cloister: a credential stood here"),
        ("\turl = https://user:tok\\\r\nen@host/x.git", "\turl = https://host/x.git"),
        ('[http "https://host/?a=b"] extraheader = x', "\t# cloister: a credential stood here"),
        ("\teditor = a \\\r\n  b\r", "\teditor = a \\\r\n  b\r"),
    ],
)
def test_redacted(line: str, expected: str) -> None:
    assert gitconfig.redacted(line) == expected


@pytest.mark.parametrize(
    "text", ["[", '["', "]", "[]", "=", "\\", '[a "', "[a]\n=\n", "\x00", "://", "a://@"]
)
def test_nothing_makes_it_fail(text: str) -> None:
    gitconfig.entries(text)
    gitconfig.redacted(text)


def test_a_backslash_joins_no_line_to_a_comment() -> None:
    """git's parser ends a comment at the end of its line, whatever that is."""
    for comment in ("# \\", "; \\", "\tbare = false # \\"):
        found = gitconfig.entries(f"[core]\n{comment}\n\tfsmonitor = x\n")
        assert Entry("core", "", "fsmonitor", "x") in found
    (joined,) = gitconfig.entries('[core]\n\ta = "# \\\nb"\n')
    assert joined.value == "# b"


def test_many_headers_on_one_line_take_no_long_time() -> None:
    assert gitconfig.entries("[a]" * 300_000 + "k = v")[-1] == Entry("a", "", "k", "v")


def test_identity_is_name_and_address_alone() -> None:
    text = (
        '[user]\n\tname = "A \\"q\\" \\\\B"\n\temail = a@b.test # work\n\tsigningkey = KEY\n'
        '[credential]\n\thelper = store\n[user "other"]\n\tname = no\n'
    )
    assert gitconfig.identity(text) == '[user]\n\temail = "a@b.test"\n\tname = "A \\"q\\" \\\\B"\n'
    assert {entry.key: entry.value for entry in gitconfig.entries(gitconfig.identity(text))} == {
        "email": "a@b.test",
        "name": 'A "q" \\B',
    }


def test_no_identity() -> None:
    assert gitconfig.identity("[core]\n\tpager = x\n") == ""


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("git@github.com:acme/widget.git", "https://github.com/acme/widget.git"),
        ("ssh://git@github.com/acme/widget", "https://github.com/acme/widget"),
        ("ssh://git@github.com:22/acme/widget", "https://github.com/acme/widget"),
        ("git://github.com/acme/widget", "https://github.com/acme/widget"),
        ("https://github.com/acme/widget", "https://github.com/acme/widget"),
        ("git@git.example.com:a/b", "https://git.example.com/a/b"),
        ("git@github.com.evil.com:a/b", "git@github.com.evil.com:a/b"),
        ("git@gitlab.com:a/b", "git@gitlab.com:a/b"),
        ("ssh://git@github.com:2222/a/b", "ssh://git@github.com:2222/a/b"),
    ],
)
def test_ssh_addresses_become_https_ones(address: str, expected: str, tmp_path: Path) -> None:
    """As git itself reads it."""
    system = tmp_path / "gitconfig"
    system.write_text(gitconfig.over_https(["github.com", "git.example.com"]))
    assert git(system, "init", "-q", "r").returncode == 0
    assert git(system, "-C", "r", "remote", "add", "origin", address).returncode == 0
    assert git(system, "-C", "r", "remote", "get-url", "origin").stdout.strip() == expected


@pytest.mark.parametrize("is_reset", [False, True])
def test_no_helper_is_asked_for_a_password(tmp_path: Path, *, is_reset: bool) -> None:
    system = tmp_path / "gitconfig"
    helper = f'[credential]\n\thelper = "!touch {tmp_path}/asked"\n'
    system.write_text(helper + (gitconfig.NO_HELPER if is_reset else ""))
    git(system, "credential", "fill", text="protocol=https\nhost=git.example.com\n\n")
    assert (tmp_path / "asked").exists() is not is_reset


def git(system: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """git with this configuration of the system's, and no other."""
    return subprocess.run(
        ["git", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_SYSTEM": str(system),
            "GIT_TERMINAL_PROMPT": "0",
            "HOME": str(system.parent),
        },
        cwd=system.parent,
        capture_output=True,
        text=True,
        input=text,
        check=False,
    )


def test_no_forge_no_configuration() -> None:
    assert gitconfig.over_https([]) == ""
