"""Write a git configuration anew with only the settings that cannot make git execute or overwrite anything.

Rule 1: nothing passes that is not named here, with a value of the named shape. The result is rendered from
what was read, never copied, so a difference between git's parser and ours cannot smuggle a setting through.
Rule 2: no I/O.
"""

from __future__ import annotations

import re

from cloister.sandbox import gitconfig

_NAME = r"[A-Za-z0-9._/+:@{}^~*-]{1,400}"
_WORD = r"[A-Za-z0-9._][A-Za-z0-9._/+-]{0,400}"
_BOOLEAN = r"(?i:true|false|yes|no|on|off|0|1)"
_URL = r"(?:https://|ssh://|git@)[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]{1,2000}"
_TEXT = r"[^\x00-\x1f\x7f]{1,400}"

# (section, whether it has a subsection, key) → shape of the value
_ALLOWED: dict[tuple[str, bool, str], str] = {
    ("core", False, "repositoryformatversion"): r"[01]",
    ("core", False, "filemode"): _BOOLEAN,
    ("core", False, "bare"): _BOOLEAN,
    ("core", False, "logallrefupdates"): r"(?i:true|false|always)",
    ("core", False, "ignorecase"): _BOOLEAN,
    ("core", False, "precomposeunicode"): _BOOLEAN,
    ("core", False, "symlinks"): _BOOLEAN,
    ("core", False, "autocrlf"): r"(?i:true|false|input)",
    ("extensions", False, "objectformat"): r"sha1|sha256",
    ("init", False, "defaultbranch"): _WORD,
    ("user", False, "name"): _TEXT,
    ("user", False, "email"): _TEXT,
    ("remote", True, "url"): _URL,
    ("remote", True, "pushurl"): _URL,
    ("remote", True, "fetch"): r"\+?refs/" + _NAME,
    ("remote", True, "tagopt"): r"--no-tags|--tags",
    ("branch", True, "remote"): _WORD,
    ("branch", True, "merge"): r"refs/" + _NAME,
    ("branch", True, "rebase"): _BOOLEAN,
    ("submodule", True, "url"): _URL,
    ("submodule", True, "active"): _BOOLEAN,
    ("submodule", False, "active"): _WORD,
}


# What git itself writes of such settings: nothing here can be read in two ways.
_PLAIN_LINE = re.compile(
    r"""\[[A-Za-z0-9.-]+(?: "[^"\\\x00-\x1f\x7f]*")?\]|\t[A-Za-z][A-Za-z0-9-]* = [^"\\#;\x00-\x1f\x7f]*|"""
)


def is_plain(text: str) -> bool:
    """Tell whether `text` is of the shape that leaves no room for a difference between parsers."""
    return all(_PLAIN_LINE.fullmatch(line) is not None for line in text.split("\n"))


def cleaned(text: str, *, work_tree: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Render the harmless part of `text`, and name what was left out.

    `work_tree`: a value of core.worktree that the caller has found to lie in the workspace.
    """
    lines: list[str] = []
    dropped: list[str] = []
    heading = ""
    for entry in gitconfig.entries(text):
        name = ".".join(part for part in (entry.section, entry.subsection, entry.key) if part)
        shape = _ALLOWED.get((entry.section, bool(entry.subsection), entry.key))
        harmless = shape is not None and re.fullmatch(shape, entry.value) is not None
        if (entry.section, entry.subsection, entry.key) == ("core", "", "worktree"):
            harmless = work_tree is not None and entry.value == work_tree
        if not harmless or any(ord(character) < 32 for character in entry.subsection):
            dropped.append(name)
            continue
        wanted = (
            f"[{entry.section} {gitconfig.quoted(entry.subsection)}]"
            if entry.subsection
            else f"[{entry.section}]"
        )
        if wanted != heading:
            lines.append(wanted)
            heading = wanted
        lines.append(f"\t{entry.key} = {gitconfig.quoted(entry.value)}")
    return "".join(f"{line}\n" for line in lines), tuple(dropped)
