"""git's configuration as a sandbox may have left it. git itself says what it means; ours must not see less.

One git is started for each example: a library that reads the same would be a third opinion.
"""

from __future__ import annotations

import os
import re
import subprocess

from hypothesis import given
from hypothesis import strategies as some

from cloister.sandbox import gitclean, gitconfig
from tests.fuzz.streams import mutated

LINES = (
    "[core]\n", "[CORE]", '[core "hookspath\0"]\n', '[remote "o"]\n', '[remote "a\\"]b"]\n', "[branch.main]\n", '[include]', '[includeIf "gitdir:/"]\n',
    "\tfsmonitor = x\n", "hooksPath=.husky\n", " bare = true ; comment\n", "\tpath = a\\\n b\n", "url = https://u:p@h/x\n",
    '\teditor = "a # b" # c \\\n', "# comment \\\n", "\textraheader = AUTHORIZATION: basic c2VjcmV0\n", "\turl = \"https://u:p@h/x\"\n",
    "\tkey\n", "\r\n", "\tfetch = +refs/heads/*:refs/remotes/o/*\n", "\tname = A \\\"q\\\" \\\\B\\t\n", "[http]extraHeader=x\n",
)  # fmt: skip
PIECES = (
    b"\0", b"\\", b'"', b"\n", b"\r", b"\r\n", b"]", b"[", b"#", b";", b"=", b" ", b"\t", b"\x0b", b"\x0c", b"\\\n", b"\\\r\n", b".",
    b"\xef\xbb\xbf", b"\\n", b"://", b"@",
)  # fmt: skip
CONFIGURATIONS = mutated(
    some.builds(
        lambda mark, lines: (mark + "".join(lines)).encode(),
        some.sampled_from(["", "\ufeff"]),
        some.lists(some.sampled_from(LINES), max_size=6),
    ),
    PIECES,
)


def _of_git(text: bytes) -> list[tuple[str, str]] | None:
    """(name, value) as git reads them; None if it refuses the file."""
    done = subprocess.run(
        ["git", "config", "--file", "-", "--no-includes", "--null", "--list"],
        input=text, capture_output=True, check=False, cwd="/", env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        return None
    pairs = done.stdout.decode(errors="surrogateescape").split("\0")[:-1]
    return [
        (name, value if equals else "true")
        for name, equals, value in (pair.partition("\n") for pair in pairs)
    ]


def _ours(text: bytes) -> set[tuple[str, str]]:
    found = gitconfig.entries(text.decode(errors="surrogateescape"))
    return {
        (".".join(part for part in (one.section, one.subsection, one.key) if part), one.value)
        for one in found
    }


def _plain(value: str) -> str:
    """With one space for all white space: git 2.39 makes a tab within a value a space, and ours stays a tab."""
    return re.sub(r"\s+", " ", value).strip()


@given(CONFIGURATIONS)
def test_what_git_finds_is_found(text: bytes) -> None:
    theirs = _of_git(text)
    if theirs is not None:
        ours = {(name, _plain(value)) for name, value in _ours(text)}
        assert {(name.rstrip("."), _plain(value)) for name, value in theirs} <= ours


@given(CONFIGURATIONS)
def test_what_is_written_anew_holds_nothing_that_git_obeys(text: bytes) -> None:
    clean, _ = gitclean.cleaned(text.decode(errors="replace"))
    theirs = _of_git(clean.encode())
    assert theirs is not None, "git must be able to read it"
    for name, _ in theirs:
        section, _, rest = name.partition(".")
        subsection, _, key = rest.rpartition(".")
        assert (section, bool(subsection), key) in gitclean._ALLOWED
    assert gitclean.cleaned(clean) == (clean, ())


@given(CONFIGURATIONS)
def test_what_is_plain_means_the_same_to_git(text: bytes) -> None:
    """A plain file that loses nothing stays as it is, so our reading of it must be git's."""
    decoded = text.decode(errors="replace")
    if gitclean.is_plain(decoded) and not gitclean.cleaned(decoded)[1]:
        theirs = _of_git(decoded.encode())
        assert theirs is not None
        assert {(name, value) for name, value in theirs} == _ours(decoded.encode())


@given(CONFIGURATIONS)
def test_no_secret_key_is_left(text: bytes) -> None:
    redacted = gitconfig.redacted(text.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    assert not any(name.rpartition(".")[2] in gitconfig.SECRET_KEYS for name, _ in _of_git(redacted) or [])


@given(
    some.sampled_from(
        [
            "[http]\n\textraheader = AUTHORIZATION: p4ssword\n",
            '[http "https://h/?a=b"]extraHeader="p4ssword" # it\n',
            '[remote "o"]\n\turl = https://u:p4ssword@h.example/x\n',
        ]
    ),
    some.sampled_from(["", "\\\n", "\\\r\n", "\\\n\\\n"]),
    some.integers(min_value=0, max_value=60),
)
def test_no_part_of_a_credential_is_left(text: str, inserted: str, at: int) -> None:
    """Wherever a line goes on in the next one."""
    text = text[:at] + inserted + text[at:]
    if any("p4ssword" in value for _, value in _of_git(text.encode()) or []):
        redacted = gitconfig.redacted(text)
        assert "p4ss" not in redacted
        assert "word" not in redacted
