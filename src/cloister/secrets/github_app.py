"""`github-app:OWNER/REPO[?app_id=N&key=SOURCE&permissions=contents:write,…&api=URL]`: a token of a GitHub App.

The token is an installation's: it lives for an hour at most, for that repository alone, with the permissions that are
named (contents:read if none are). The App's number and its private key come from GITHUB_APP_ID and
GITHUB_APP_PRIVATE_KEY if the source does not say otherwise; the key never leaves this process.

Rule 1: what proves to be the App (a JSON Web Token, RFC 7519) lives for nine minutes, and goes to the API's host alone.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from cloister.secrets import https
from cloister.secrets import source as sources
from cloister.secrets.options import options
from cloister.secrets.program import moment
from cloister.secrets.source import Context, Source, SourceError, Value, failed

API = "https://api.github.com"
APP_ID = "GITHUB_APP_ID"
KEY = "env:GITHUB_APP_PRIVATE_KEY"
LEAST_PERMISSIONS = "contents:read"
_LIFE_S = 540  # GitHub takes ten minutes at most, by its own clock
_SKEW_S = 60  # which may be behind ours
_REPOSITORY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})/(?!\.{1,2}$)[A-Za-z0-9_.-]{1,100}")
_PERMISSION = re.compile(r"([a-z][a-z_]{0,63}):(read|write|admin)")
_APP_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")  # a number, or the client id
_EXPECTED = '"github-app:OWNER/REPO?app_id=N&key=file:~/app.pem&permissions=contents:write"'
_HINTS = {
    401: "the App's number does not belong to its key, or this host's clock is wrong",
    403: "the App may not do that",
    404: "the App is not installed there, or there is no such repository",
    422: "the App does not have these permissions, or not for this repository",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """What the source's text says. `app_id` is empty if the environment says it."""

    owner: str
    repository: str
    app_id: str
    key: Source
    permissions: Mapping[str, str]
    api: str


def check(source: Source) -> None:
    """SourceError unless it names a repository, and how to prove to be an App."""
    read(source.argument)


def read(argument: str) -> App:
    """The parts of an argument. SourceError."""
    name, _, query = argument.partition("?")
    if not _REPOSITORY.fullmatch(name):
        raise SourceError("this names no repository of GitHub", _EXPECTED)
    found = options(query, ("app_id", "key", "permissions", "api"))
    app_id = found.get("app_id", "")
    if app_id and not _APP_ID.fullmatch(app_id):
        raise SourceError("app_id is no number of a GitHub App", _EXPECTED)
    key = sources.parse(found.get("key", KEY))
    if key.scheme in ("github-app", "aws-sts"):
        raise SourceError("the App's key cannot come from there", "env:, file:, exec:, op: …")
    api = found.get("api", API).rstrip("/")
    if not https.is_https(api):
        raise SourceError(
            "api is no URL that begins with https://", '"api=https://github.example.com/api/v3"'
        )
    owner, _, repository = name.partition("/")
    permissions = _permissions(found.get("permissions", LEAST_PERMISSIONS))
    return App(owner=owner, repository=repository, app_id=app_id, key=key, permissions=permissions, api=api)


def _permissions(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in text.split(","):
        match = _PERMISSION.fullmatch(one)
        if match is None or match[1] in found:
            raise SourceError(f'"{one[:60]}" is no permission', '"contents:write,pull_requests:write"')
        found[match[1]] = match[2]
    return found


def fetch(source: Source, context: Context) -> Value:
    """A token for that repository."""
    app = read(source.argument)
    app_id = app.app_id or context.environ.get(APP_ID, "")
    if not _APP_ID.fullmatch(app_id):
        reason = f"the App's number is neither in app_id nor in {APP_ID}"
        raise failed(source, context, reason, resolution=f"write {_EXPECTED}")
    token = bearer(app_id, _signer(app, source, context), now=context.clock())
    where = f"/repos/{quote(app.owner)}/{quote(app.repository)}/installation"
    installation = _call(app, source, context, token, path=where, body=None).get("id")
    if not isinstance(installation, int) or isinstance(installation, bool):
        raise failed(source, context, "GitHub's answer names no installation of the App")
    wanted = {"repositories": [app.repository], "permissions": dict(app.permissions)}
    path = f"/app/installations/{installation}/access_tokens"
    found = _call(app, source, context, token, path=path, body=wanted)
    try:
        text, end = found["token"], found["expires_at"]
        if not isinstance(text, str) or not isinstance(end, str):
            raise TypeError
        expires_at = moment(end)
        encoded = text.encode()
    except (KeyError, TypeError, ValueError):
        raise failed(source, context, "GitHub's answer holds no token") from None
    return Value(secret=sources.checked(encoded, source, context), expires_at=expires_at)


def bearer(app_id: str, sign: Callable[[bytes], bytes], *, now: float) -> str:
    """A JSON Web Token that says who the App is (RS256, RFC 7518 section 3.3)."""
    claims = {"iat": int(now) - _SKEW_S, "exp": int(now) + _LIFE_S, "iss": app_id}
    parts = [_base64url(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{_base64url(sign(signed.encode()))}"


def _signer(app: App, source: Source, context: Context) -> Callable[[bytes], bytes]:
    content = sources.fetch(app.key, replace(context, several_lines=True)).secret
    from cryptography.exceptions import UnsupportedAlgorithm  # deferred: the key may be missing
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content.reveal(), password=None)
    except TypeError:
        raise failed(source, context, "the App's key has a passphrase; expected one without") from None
    except (ValueError, UnsupportedAlgorithm):
        raise failed(source, context, "the App's key is no private key in PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise failed(source, context, "the App's key is not an RSA key")
    return lambda data: key.sign(data, PKCS1v15(), SHA256())


def _call(
    app: App, source: Source, context: Context, token: str, *, path: str, body: object | None
) -> dict[str, object]:
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "Content-Type": "application/json",
        "User-Agent": "cloister",
        "Connection": "close",
    }
    try:
        answer = https.call(
            "GET" if body is None else "POST",
            app.api + path,
            headers=headers,
            body=body,
            environ=context.environ,
            extra_ca=context.upstream_ca,
            left_s=context.left_s,
        )
    except https.RequestError as error:
        raise failed(source, context, f"{app.api} cannot be reached: {error}") from None
    if 300 <= answer.status < 400:
        reason = f"GitHub answered {answer.status}, a redirect: the repository may have another name now"
        raise failed(source, context, reason)
    if not 200 <= answer.status < 300:
        hint = _HINTS.get(answer.status, "")
        raise failed(source, context, f"GitHub answered {answer.status}{': ' + hint if hint else ''}")
    return answer.document


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
