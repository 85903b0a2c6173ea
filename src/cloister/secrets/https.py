"""A small HTTPS client for sources: one request, one JSON answer.

Rule 1: https only, verified. A redirect is an error: what is sent must not arrive elsewhere.
Rule 2: the answer is bounded, and so is the time: by the socket's time-out and by the deadline over all.
Rule 3: the user's own proxy (HTTPS_PROXY, NO_PROXY) is honoured, as the user's other programs do; TLS goes through it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import urllib.request

ANSWER_LIMIT_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A status, and the JSON object of the body ({} if it is none)."""

    status: int
    document: dict[str, object]


class RequestError(Exception):
    """No answer: its text says why, and holds nothing of what was sent."""


def call(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: object | None,
    environ: Mapping[str, str],
    extra_ca: Sequence[str],
    left_s: Callable[[], float],
) -> Answer:
    """Send a request. RequestError, TimeoutError."""
    import ssl  # all of it: a gateway that fetches no such token needs none of these
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    request = urllib.request.Request(  # noqa: S310 - https only: `is_https` has been asked by `github_app.read`
        url, method=method, headers=dict(headers), data=None if body is None else json.dumps(body).encode()
    )
    try:
        tls = ssl.create_default_context()
        for path in extra_ca:
            tls.load_verify_locations(cafile=path)
        with _opener(urllib.request.HTTPSHandler(context=tls), url, environ).open(
            request, timeout=left_s()
        ) as answer:
            return Answer(status=answer.status, document=_document(_body(answer, left_s)))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(status=error.code, document={})
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TimeoutError from None
        raise RequestError(_reason(error.reason)) from None
    except TimeoutError:
        raise
    except (HTTPException, OSError, ValueError) as error:
        raise RequestError(_reason(error)) from None


def is_https(url: str) -> bool:
    """Whether it is an https URL with a host and nothing that hides one."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment) and "@" not in url
    return parts.scheme == "https" and bool(parts.hostname) and plain and port != 0


def proxy_for(host: str, environ: Mapping[str, str]) -> str | None:
    """The user's proxy for TLS to `host`, if it is to be used. Entries of NO_PROXY are names and their subdomains."""

    def setting(name: str) -> str:
        return environ.get(name) or environ.get(name.upper()) or ""

    for entry in setting("no_proxy").lower().replace(" ", ",").split(","):
        name = entry.lstrip("*").lstrip(".")
        if entry == "*" or (name and f".{host.lower()}".endswith(f".{name}")):
            return None
    return setting("https_proxy") or setting("all_proxy") or None


def _opener(
    https: urllib.request.HTTPSHandler, url: str, environ: Mapping[str, str]
) -> urllib.request.OpenerDirector:
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None  # then it is an HTTPError with its own status

    proxy = proxy_for(urlsplit(url).hostname or "", environ)
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({"https": proxy} if proxy else {}), https, NoRedirect()
    )


def _body(answer: object, left_s: Callable[[], float]) -> bytes:
    """All of it, in time: a socket's time-out alone allows a byte every half minute."""
    read = getattr(answer, "read1")  # noqa: B009 - urllib types its answers as anything
    data, started = b"", time.monotonic()
    limit_s = left_s()
    while chunk := read(_CHUNK_BYTES):
        data += chunk
        if len(data) > ANSWER_LIMIT_BYTES:
            raise RequestError(f"the answer is longer than {ANSWER_LIMIT_BYTES >> 20} MiB")
        if time.monotonic() - started > limit_s:
            raise TimeoutError
    return data


def _document(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _reason(error: object) -> str:
    """OpenSSL's own words for a certificate, the system's for the rest."""
    verify = getattr(error, "verify_message", "")
    if verify:
        return f"its certificate does not verify: {verify}"
    return str(getattr(error, "strerror", None) or type(error).__name__)
