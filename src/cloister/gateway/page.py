"""Render the page that tells an agent why it was refused.

Rule 1: short, and the reason stands in the status line too: pip prints nothing else of an answer (ADR 0022).
Rule 2: never HTML; every byte that came from the sandbox is reduced to printable ASCII, and quoted by JSON.
Rule 3: `text/plain` unless the client asked for JSON: git shows a text to its user, and nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from cloister.messages import ResponseHead

_PHRASE_LIMIT_CHARACTERS = 200
_FIELD_LIMIT_CHARACTERS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What was refused, and why. `untrusted_host` is only shown.

    `status` is 403 for a decision of the policy, 502 and 504 for an upstream's failure, 400 for a request
    that no parser should accept.
    """

    status: int
    reason: str
    untrusted_host: str
    port: int
    rule: str | None = None
    ask: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A rendered answer: a status line's parts, headers and body."""

    status: int
    phrase: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def head(self) -> ResponseHead:
        """The head, for a codec to write."""
        headers = tuple(
            (name.lower().encode(), value.encode())
            for name, value in self.headers
            if name not in ("Content-Length", "Connection")
        )
        length = len(self.body)
        return ResponseHead(
            status=self.status, headers=headers, length=length, declared_length=length, phrase=self.phrase
        )

    def http1(self, *, head_only: bool = False) -> bytes:
        """The whole answer as HTTP/1.1."""
        lines = [
            f"HTTP/1.1 {self.status} {self.phrase}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if head_only else self.body)


def page(refusal: Refusal, *, untrusted_accept: str = "") -> Page:
    """The page for a client whose Accept header is `untrusted_accept`."""
    verb = "refused by" if refusal.status == 403 else "failed at"
    reason = _clean(refusal.reason)
    if wants_json(untrusted_accept):
        kind, body = "application/json", _as_json(refusal, f"{verb} cloister: {reason}")
    else:
        kind, body = "text/plain; charset=us-ascii", _as_text(refusal, verb)
    headers = (
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("X-Cloister-Refused", _clean(refusal.rule or "no-rule")),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    )
    phrase = f"{verb.capitalize()} cloister: {reason}"[:_PHRASE_LIMIT_CHARACTERS]
    return Page(status=refusal.status, phrase=phrase, headers=headers, body=body)


def wants_json(untrusted_accept: str) -> bool:
    """True if the first media type that is JSON, HTML or text in the Accept header is a JSON one."""
    for item in untrusted_accept.lower().split(","):
        media = item.partition(";")[0].strip()
        if media == "application/json" or media.endswith("+json"):
            return True
        if media.startswith("text/") and media != "text/*":
            return False
    return False


def _as_text(refusal: Refusal, verb: str) -> bytes:
    lines = [
        f"{verb.capitalize()} cloister, the sandbox that this program runs in.",
        f"  host:   {_clean(refusal.untrusted_host)}",
        f"  port:   {refusal.port}",
        f"  rule:   {_clean(refusal.rule or 'none')}",
        f"  reason: {_clean(refusal.reason)}",
    ]
    if refusal.ask:
        lines.append(f"  to ask: {_clean(refusal.ask)}")
    if refusal.status == 403:
        lines.append("Trying again, another mirror or weaker TLS checks will not help: ask the user.")
    return ("\n".join(lines) + "\n").encode("ascii")


def _as_json(refusal: Refusal, summary: str) -> bytes:
    fields = {
        "error": summary,  # what npm prints
        "refused_by": "cloister",
        "host": _clean(refusal.untrusted_host),
        "port": refusal.port,
        "rule": _clean(refusal.rule) if refusal.rule else None,
        "reason": _clean(refusal.reason),
        "ask": _clean(refusal.ask),
    }
    return json.dumps(fields).encode("ascii") + b"\n"


def _clean(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text[:_FIELD_LIMIT_CHARACTERS])
