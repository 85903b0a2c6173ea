"""Put a credential's value into a request's head, in place of whatever the client put there.

Rule 1: the client's own values of that place are dropped, however often and however they are written (ATTACKS ID-7).
Rule 2: a value that does not fit its place is an error that names the credential, never the value (ID-10).
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from urllib.parse import quote, unquote_plus

from cloister.errors import CredentialError
from cloister.messages import RequestHead, as_cgi
from cloister.secret import Secret
from cloister.types import BasicInjection, HeaderInjection, Injection, QueryInjection

_VISIBLE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_AUTHORIZATION = b"authorization"


class UnfitSecretError(CredentialError):
    """A value cannot stand where it is to be injected."""


def inject(request: RequestHead, injection: Injection, value: Secret) -> RequestHead:
    """The request with the value in its place. UnfitSecretError."""
    match injection:
        case HeaderInjection(name=name, template=template):
            text = template.encode().replace(b"{}", _visible(value))
            return _with_header(request, name.encode(), text)
        case BasicInjection(user=user):
            text = b"Basic " + base64.b64encode(user.encode() + b":" + _visible(value))
            return _with_header(request, _AUTHORIZATION, text)
        case QueryInjection(name=name):
            kept = [part for part in _parts(request.query) if not _names(part, name)]
            query = "&".join([*kept, f"{quote(name, safe='')}={quote(_visible(value), safe='')}"])
            return replace(request, query=query)
        case _:
            return request


def withhold(request: RequestHead, injection: Injection, placeholder: bytes) -> RequestHead:
    """The request without its placeholder at that place: it goes without the credential."""
    match injection:
        case QueryInjection(name=name):
            kept = [part for part in _parts(request.query) if not _names(part, name)]
            return replace(request, query="&".join(kept) or None) if request.query is not None else request
        case HeaderInjection(name=name):
            return _without(request, name.encode(), placeholder)
        case _:
            return _without(request, _AUTHORIZATION, placeholder)


def place(injection: Injection) -> str:
    """Where it goes, for people; two credentials must not share it on one host."""
    match injection:
        case HeaderInjection(name=name):
            return f"header {name}"
        case BasicInjection():
            return "header authorization"
        case QueryInjection(name=name):
            return f"query {name}"
        case _:
            return ""


def visible(value: Secret) -> bytes:
    """The value, if it can stand in a header. UnfitSecretError."""
    return _visible(value)


def _visible(value: Secret) -> bytes:
    content = value.reveal()
    if _VISIBLE.fullmatch(content) is None:
        what = "is empty" if not content else "holds a line break, a control byte or a byte outside of ASCII"
        raise UnfitSecretError(
            f'the value of credential "{value.name}" {what}, so it cannot stand in a request',
            resolution=f"see where it comes from: cloister secret explain {value.name}",
        )
    return content


def _with_header(request: RequestHead, name: bytes, value: bytes) -> RequestHead:
    kept = [pair for pair in request.headers if as_cgi(pair[0]) != as_cgi(name)]
    return replace(request, headers=(*kept, (name, value)))


def _without(request: RequestHead, name: bytes, placeholder: bytes) -> RequestHead:
    """Drop that header if it carries the placeholder."""
    from cloister.credentials.placeholder import Scanner

    def carries(value: bytes) -> bool:
        return bool(Scanner({"it": placeholder}).feed(value))

    kept = tuple(pair for pair in request.headers if pair[0] != name or not carries(pair[1]))
    return request if len(kept) == len(request.headers) else replace(request, headers=kept)


def _parts(query: str | None) -> list[str]:
    return query.split("&") if query else []


def _names(part: str, name: str) -> bool:
    """Whether a part of a query sets this parameter, in whatever encoding."""
    return unquote_plus(part.split("=", 1)[0]) == name
