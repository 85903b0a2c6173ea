"""The texts of `inject`: where in a request a credential goes.

Rule 1: a header's template cannot end the header: it holds no control character, and {} exactly once.
Rule 2: headers that frame or route a request are the gateway's alone; no credential goes there.
"""

from __future__ import annotations

import re
from typing import assert_never

from cloister.config.place import Place
from cloister.types import (
    AwsSignature,
    BasicInjection,
    HeaderInjection,
    Injection,
    QueryInjection,
    Replacement,
)

EXPECTED = (
    '"bearer", "basic:USER", "header:NAME", "header:NAME:TEMPLATE with {}", "query:NAME", '
    '"replace" or "aws-sigv4"'
)
AUTHORIZATION = "header authorization"
_BEARER = "Bearer {}"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # RFC 9110 section 5.6.2
_PARAMETER = re.compile(r"[A-Za-z0-9_.~-]{1,64}")
_TEMPLATE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?")
_USER = re.compile(r"[\x21-\x39\x3b-\x7e]{1,100}")  # without ":" (RFC 7617)
_FRAMING = """
accept-encoding connection content-encoding content-length expect forwarded host http2-settings keep-alive
proxy-authorization proxy-connection te trailer transfer-encoding upgrade via x-http-method x-http-method-override
x-method-override
"""
FORBIDDEN_HEADERS = frozenset(_FRAMING.split())


def parse_injection(text: str, where: Place) -> Injection:
    """The value of `inject`; ConfigurationError at `where`."""
    kind, _, rest = text.partition(":")
    match kind:
        case "bearer" if text == kind:
            return HeaderInjection(name="authorization", template=_BEARER)
        case "basic" if _USER.fullmatch(rest):
            return BasicInjection(user=rest)
        case "header":
            return _header(text, rest, where)
        case "query" if _PARAMETER.fullmatch(rest):
            return QueryInjection(name=rest)
        case "replace" if text == kind:
            return Replacement()
        case "aws-sigv4" if text == kind:
            return AwsSignature()
        case _:
            raise where.error("this is no way to inject", expected=EXPECTED, found=text)


def written(injection: Injection) -> str:
    """As it would be written in a file."""
    match injection:
        case HeaderInjection(name="authorization", template="Bearer {}"):
            return "bearer"
        case HeaderInjection(name=name, template="{}"):
            return f"header:{name}"
        case HeaderInjection(name=name, template=template):
            return f"header:{name}:{template}"
        case BasicInjection(user=user):
            return f"basic:{user}"
        case QueryInjection(name=name):
            return f"query:{name}"
        case Replacement():
            return "replace"
        case AwsSignature():
            return "aws-sigv4"
        case _:
            assert_never(injection)


def slot(injection: Injection) -> str:
    """The place that two credentials of one host cannot share; empty for `replace`, which shares all."""
    match injection:
        case HeaderInjection(name=name):
            return f"header {name}"
        case BasicInjection() | AwsSignature():
            return AUTHORIZATION
        case QueryInjection(name=name):
            return f"query {name}"
        case Replacement():
            return ""
        case _:
            assert_never(injection)


def _header(text: str, rest: str, where: Place) -> Injection:
    name, colon, template = rest.partition(":")
    if not _TOKEN.fullmatch(name):
        raise where.error("this is no name of a header", expected='as in "header:X-Api-Key"', found=text)
    if name.lower() in FORBIDDEN_HEADERS or name.lower().startswith("sec-websocket-"):
        raise where.error(
            f'the header "{name}" frames or routes a request, so no credential goes there',
            expected='another header, as in "header:X-Api-Key"',
            found=text,
        )
    template = template if colon else "{}"
    if not _TEMPLATE.fullmatch(template) or template.count("{}") != 1:
        raise where.error(
            "a header's template is one line that holds {} once, where the value goes",
            expected='as in "header:Authorization:Token {}"',
            found=text,
        )
    return HeaderInjection(name=name.lower(), template=template)
