"""Read what matters of git's configuration files, without git.

Rule 1: text in, values out. Host `git` is never run in a repository that a sandbox may have written.
Rule 2: the reading is generous: a setting is found wherever git would find it, and sometimes where not.
"""

from __future__ import annotations

from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Settings whose value is a secret itself.
SECRET_KEYS = frozenset({"extraheader", "smtppass", "password", "token", "oauthtoken", "pass"})
# The gateway sets the credential without being asked, so that nothing in the sandbox need keep one.
NO_HELPER = "[credential]\n\thelper =\n"
# In a work tree that shares its repository: other work trees are not there, and must not be taken for abandoned; their
# logs cannot be written.
SHARED = """\
[gc]
\tworktreePruneExpire = never
\treflogExpire = never
\treflogExpireUnreachable = never
[repack]
\tupdateServerInfo = false
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting: `[section "subsection"] key = value`. Section and key are lower case."""

    section: str
    subsection: str
    key: str
    value: str


def entries(text: str) -> list[Entry]:
    """List the settings of a configuration file, in order."""
    found: list[Entry] = []
    section, subsection = "", ""
    for line in _logical_lines(text.removeprefix("\ufeff")):  # git skips a byte order mark
        rest, start = line.strip(), 0
        while rest.startswith("[", start):
            end = _section_end(rest, start)
            section, _, quoted = rest[start + 1 : end].partition('"')
            subsection = quoted.rpartition('"')[0].replace('\\"', '"').replace("\\\\", "\\")
            section = section.strip().lower()
            if not quoted and "." in section:  # the old form: [section.subsection]
                section, _, subsection = section.partition(".")
            start = end + 1
            while rest.startswith((" ", "\t"), start):
                start += 1
        rest = rest[start:].strip()
        if rest and rest[0] not in "#;":
            key, equals, value = rest.partition("=")
            name = _named(section, subsection, key.strip().lower())
            found.append(Entry(*name, _value(value) if equals else "true"))
    return found


def _named(section: str, subsection: str, key: str) -> tuple[str, str, str]:
    """A setting's name as git takes it: a NUL ends it, so that `[core "hookspath\\0"] x` is core.hookspath."""
    if "\0" in subsection:
        section, _, rest = f"{section}.{subsection}".partition("\0")[0].partition(".")
        subsection, _, key = rest.rpartition(".")
    return section, subsection, key.lower()


def quoted(value: str) -> str:
    """A value or a subsection as a configuration file writes it; without control characters."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def identity(text: str) -> str:
    """The user's name and address alone, as a configuration: what a commit needs, and nothing else of the host's."""
    found = {
        entry.key: entry.value
        for entry in entries(text)
        if (entry.section, entry.subsection) == ("user", "") and entry.key in ("name", "email")
    }
    lines = [
        '\t{} = "{}"\n'.format(key, value.replace("\\", "\\\\").replace('"', '\\"'))
        for key, value in sorted(found.items())
        if value.isprintable()
    ]
    return "".join(["[user]\n", *lines]) if lines else ""


def over_https(forges: Sequence[str]) -> str:
    """Configuration by which SSH addresses of these hosts are reached over HTTPS, where the gateway can judge them."""
    lines = []
    for host in forges:
        lines += [f'[url "https://{host}/"]']
        lines += [
            f"\tinsteadOf = {prefix}"
            for prefix in (f"git@{host}:", f"ssh://git@{host}/", f"ssh://git@{host}:22/", f"git://{host}/")
        ]
    return "".join(f"{line}\n" for line in lines)


def redacted(text: str) -> str:
    """Take credentials out: user information in URLs, and the values of SECRET_KEYS."""
    kept: list[str] = []
    for lines in _groups(text):
        line = _joined(lines)
        if _holds_secret(line):
            kept.append("\t# cloister: a credential stood here")
        elif (clean := _without_userinfo(line)) != line:
            kept.append(clean)
        else:
            kept += lines
    return "\n".join(kept)


def _holds_secret(line: str) -> bool:
    if line.partition("=")[0].strip().lower().rpartition("]")[2].strip() in SECRET_KEYS:
        return True
    return any(entry.key in SECRET_KEYS for entry in entries(line))  # behind a header that holds a "="


def _without_userinfo(line: str) -> str:
    start = line.find("://")
    while start >= 0:
        start += 3
        end = start
        while end < len(line) and line[end] not in "/ \t\"'":
            end += 1
        at = line.rfind("@", start, end)
        scheme = line[: start - 3].lower()
        if at >= 0 and not scheme.endswith("ssh"):  # git@ is no secret
            line = line[:start] + line[at + 1 :]
            end -= at + 1 - start
        start = line.find("://", end)
    return line


def _section_end(text: str, start: int) -> int:
    quoted = False
    for index in range(start, len(text)):
        if text[index] == '"' and text[index - 1] != "\\":
            quoted = not quoted
        elif text[index] == "]" and not quoted:
            return index
    return len(text)


def _logical_lines(text: str) -> list[str]:
    return [_joined(lines) for lines in _groups(text)]


def _groups(text: str) -> list[list[str]]:
    """The lines, those together that git reads as one."""
    groups: list[list[str]] = []
    pending: list[str] = []
    quoted = continues = False
    for line in text.split("\n"):
        pending.append(line)
        bare = line.rstrip("\r")
        continues, quoted = _continues(bare, quoted) if bare.endswith("\\") else (False, False)
        if not continues:
            groups.append(pending)
            pending, quoted = [], False
    return [*groups, pending] if pending else groups


def _joined(lines: list[str]) -> str:
    *before, last = lines
    return "".join([*(line.rstrip("\r")[:-1] for line in before), last.rstrip("\r") if before else last])


def _continues(line: str, quoted: bool) -> tuple[bool, bool]:
    """Tell whether a line's last backslash joins the next one to it, which it does not in a comment."""
    escaped = False
    for character in line:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character in "#;" and not quoted:
            return False, False
    return escaped, quoted


def _value(raw: str) -> str:
    value, quoted, escaped = "", False, False
    for character in raw.strip():
        if escaped:
            value += {"n": "\n", "t": "\t", "b": "\b"}.get(character, character)
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character in "#;" and not quoted:
            break
        else:
            value += character
    return value.strip().partition("\0")[0]  # where git's string ends
