"""Judge a push over HTTPS by its commands, before a byte of it leaves (gitprotocol-pack(5)).

Rule 1: every command must be allowed, or none leaves: half a push is worse than none.
Rule 2: a ref is allowed only by a glob of `[git] push`; deleting, and moving to what does not follow, need
        their own word.
Rule 3: the answer is what `git push` prints; a 403 it would hide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloister.credentials.git_pack import Commits
from cloister.errors import UntrustedInputError
from cloister.types import PushRule

COMMANDS_LIMIT = 1000
MOVED_LIMIT = 100  # refs whose old and new commit must be linked
LINES_LIMIT = 20_000  # commands, shallow commits, options
_LINE_LIMIT_BYTES = 65520
_COMMAND = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64}) ([0-9a-f]{40}|[0-9a-f]{64}) ([^\0\n\r ]{1,1024})\n?")
_REF = re.compile(rb"refs(?:/[^\x00-\x20\x7f~^:?*\[\\/]+)+")
_LENGTH = re.compile(rb"[0-9A-Fa-f]{4}")
_SIDE_BAND_BYTES = 65515


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One ref of a push: from which object to which."""

    old: str
    new: str
    ref: str

    @property
    def creates(self) -> bool:
        return not self.old.strip("0")

    @property
    def deletes(self) -> bool:
        return not self.new.strip("0")


class PushJudge:
    """Reads the start of a push's body. `decided` once it is clear; `refused` then says why not, by ref."""

    def __init__(self, rule: PushRule) -> None:
        self._rule = rule
        self._buffer = b""
        self._at = 0  # what has been read of it
        self._lines = 0
        self._walked = 0  # commits, when links were last looked for
        self._in_commands = True
        self._in_options = False
        self._pack: Commits | None = None
        self.capabilities: frozenset[str] = frozenset()
        self.commands: list[Command] = []
        self.refused: dict[str, str] = {}
        self._unlinked: list[Command] = []
        self.decided = False

    def feed(self, data: bytes) -> bool:
        """Read on; True once it is decided. UntrustedInputError if this is no push."""
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        while not self.decided and (self._in_commands or self._in_options):
            line = self._line()
            if line is None:
                return False
            if self._in_commands:
                self._command(line)
            elif line == b"":
                self._in_options = False
        if self._pack is not None and not self.decided:
            data, self._buffer, self._at = self._buffer[self._at :], b"", 0
            self._pack.feed(data)
            # A walk over all of the commits: again when there are twice as many, so that it costs no more than they do.
            if self._pack.complete or self._pack.count >= 2 * self._walked:
                self._walked = self._pack.count
                self._unlinked = [one for one in self._unlinked if not self._pack.links(one.new, one.old)]
            self._conclude(ended=self._pack.complete)
        return self.decided

    def end(self) -> None:
        """The body has ended."""
        if self._in_commands:
            raise UntrustedInputError("the push ends within its commands")
        self._conclude(ended=True)

    def _command(self, line: bytes) -> None:
        if line == b"":
            self._in_commands = False
            self._judge()
            return
        if line.startswith(b"shallow "):
            return
        if line.startswith(b"push-cert"):
            raise UntrustedInputError("signed pushes (push certificates) cannot be judged")
        if not self.commands:
            line, _, words = line.partition(b"\0")
            self.capabilities = frozenset(words.decode("ascii", "replace").split())
            self._in_options = "push-options" in self.capabilities
        match = _COMMAND.fullmatch(line)
        if match is None or len(match[1]) != len(match[2]):
            raise UntrustedInputError("a command of the push cannot be read")
        if len(self.commands) >= COMMANDS_LIMIT:
            raise UntrustedInputError(f"more than {COMMANDS_LIMIT} refs in one push")
        ref = match[3]
        text = ref.decode("utf-8", "backslashreplace")
        command = Command(old=match[1].decode(), new=match[2].decode(), ref=text)
        self.commands.append(command)
        if not _REF.fullmatch(ref) or b".." in ref:
            self.refused[text] = "this is no name of a ref"

    def _judge(self) -> None:
        allowed = ", ".join(self._rule.refs) or "nothing"
        for command in self.commands:
            if command.ref in self.refused:
                continue
            if not any(matches(glob, command.ref) for glob in self._rule.refs):
                self.refused[command.ref] = f"pushing to it is not allowed; allowed: {allowed}"
            elif command.deletes and not self._rule.delete:
                self.refused[command.ref] = "deleting it is not allowed ([git] delete)"
            elif not command.creates and not command.deletes and not self._rule.force:
                self._unlinked.append(command)
        for command in self._unlinked[MOVED_LIMIT:]:
            self.refused[command.ref] = f"more than {MOVED_LIMIT} refs that exist, in one push"
        if self.refused or not self._unlinked:
            self._conclude(ended=True)
        else:
            object_format = "sha256" if len(self._unlinked[0].new) == 64 else "sha1"
            self._pack = Commits(object_format=object_format)

    def _conclude(self, *, ended: bool) -> None:
        if self.decided or (self._unlinked and not ended):
            return
        for command in self._unlinked:
            self.refused.setdefault(
                command.ref,
                "moving it to what does not follow is not allowed ([git] force); fetch, and rebase or merge",
            )
        self.decided = True

    def _line(self) -> bytes | None:
        """The next pkt-line; b"" for a flush; None if it is not all there."""
        head = self._buffer[self._at : self._at + 4]
        if len(head) < 4:
            return None
        if not _LENGTH.fullmatch(head):
            raise UntrustedInputError("this is no pkt-line")
        size = int(head, 16)
        if size != 0 and not 4 < size <= _LINE_LIMIT_BYTES:
            raise UntrustedInputError("a pkt-line has an impossible size")
        end = self._at + (size or 4)
        if len(self._buffer) < end:
            return None
        self._lines += 1
        if self._lines > LINES_LIMIT:
            raise UntrustedInputError(f"more than {LINES_LIMIT} lines before the pack")
        line, self._at = self._buffer[self._at + 4 : end], end
        return line


def matches(glob: str, ref: str) -> bool:
    """Whether a ref is one of a glob's: "*" is within a part, "**" is one part or more."""
    parts = []
    for part in glob.split("/"):
        escaped = re.escape(part).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
        parts.append(escaped)
    return re.fullmatch("/".join(parts), ref) is not None


def advertisement_refusal(reason: str) -> bytes:
    """The body for info/refs?service=git-receive-pack: git prints "remote error: …"."""
    return pkt(b"# service=git-receive-pack\n") + b"0000" + pkt(b"ERR " + _clean(reason))


def answer(judge: PushJudge) -> bytes:
    """The body of a refused push: what `git push` prints for each ref, and a text before it."""
    lines = [pkt(b"unpack ok\n")]
    for command in judge.commands:
        reason = judge.refused.get(command.ref, "refused together with another ref of this push")
        lines.append(pkt(b"ng %b cloister: %b\n" % (_clean(command.ref), _clean(reason))))
    report = b"".join(lines) + b"0000"
    if not {"side-band-64k", "side-band"} & judge.capabilities:
        return report if {"report-status", "report-status-v2"} & judge.capabilities else b""
    words = b"cloister refuses this push; to allow a ref: [git] push in cloister.toml, then: cloister trust\n"
    size = _SIDE_BAND_BYTES if "side-band-64k" in judge.capabilities else 995
    parts = [pkt(b"\x01" + report[at : at + size]) for at in range(0, len(report), size)]
    return pkt(b"\x02" + words) + b"".join(parts) + b"0000"


def pkt(data: bytes) -> bytes:
    """One pkt-line."""
    return b"%04x%b" % (len(data) + 4, data)


def _clean(text: str) -> bytes:
    return "".join(char if " " <= char <= "~" else "?" for char in text[:600]).encode()
