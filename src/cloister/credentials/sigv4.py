"""Sign a request of AWS's anew: the sandbox signed with a placeholder, the upstream gets the real key's signature.

Rule 1: region and service are the client's own (its credential scope); what it signed is signed again, and the host.
Rule 2: a body is hashed only if the client did not say its hash; "unsigned" and streamed payloads stay what they are,
        and signed chunks are signed again, one by one.
Rule 3: a request that is not signed with the placeholder is left alone: it is anonymous, or somebody else's.

Canonical forms and keys are botocore's (the extra `aws`), which the tools of AWS use themselves.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, quote

from cloister.errors import CredentialError, UntrustedInputError
from cloister.messages import RequestHead
from cloister.secret import Secret

BODY_LIMIT_BYTES = 16 << 20  # of a request whose hash the client did not send
_AUTHORIZATION = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=([^/,\s]+)/(\d{8})/([a-z0-9-]{1,40})/([a-z0-9-]{1,60})/aws4_request,\s*"
    rb"SignedHeaders=([a-z0-9;_.-]+),\s*Signature=([0-9a-f]{64})"
)
_SCOPE = re.compile(r"([^/]+)/(\d{8})/([a-z0-9-]{1,40})/([a-z0-9-]{1,60})/aws4_request")
_SIGNED_CHUNKS = (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER")
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_CHUNK_LIMIT_BYTES = 8 << 20
_LINE_LIMIT_BYTES = 4096
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8});chunk-signature=[0-9a-f]{64}")
_DROPPED = frozenset({b"authorization", b"x-amz-date", b"date", b"x-amz-security-token"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    region: str
    service: str
    signed: tuple[bytes, ...]  # names of headers
    presigned: bool


class Resigner:
    """Signs one request anew. `applies` is False if it is not signed with the placeholder."""

    def __init__(self, head: RequestHead, *, placeholder: str, value: Secret) -> None:
        self._scope = _scope(head, placeholder.encode())
        self._value = value
        self.applies = self._scope is not None
        payload = b"".join(head.values(b"x-amz-content-sha256"))
        self._payload = payload
        self.needs_body = self.applies and not payload and not (self._scope and self._scope.presigned)
        self.chunks: ChunkSigner | None = None

    def sign(
        self, head: RequestHead, *, body: bytes = b"", now: datetime.datetime | None = None
    ) -> RequestHead:
        """The head with a signature of the real key. CredentialError if botocore is missing or the value is no key."""
        scope = self._scope
        if scope is None:
            return head
        keys = _keys(self._value)
        moment = now or datetime.datetime.now(datetime.UTC)
        timestamp = moment.strftime("%Y%m%dT%H%M%SZ")
        signer = _signer(keys, scope)
        if scope.presigned:
            return _presigned(head, scope, keys, signer, timestamp)
        headers = [pair for pair in head.headers if pair[0] not in _DROPPED]
        headers.append((b"x-amz-date", timestamp.encode()))
        if keys.get("SessionToken"):
            headers.append((b"x-amz-security-token", keys["SessionToken"].encode()))
        wanted = set(scope.signed) | {b"host", b"x-amz-date", b"x-amz-security-token"}
        if not self._payload and scope.service == "s3":
            headers.append((b"x-amz-content-sha256", hashlib.sha256(body).hexdigest().encode()))
            wanted.add(b"x-amz-content-sha256")
        signed = [pair for pair in headers if pair[0] in wanted]
        request = _request(head, signed, timestamp, body)
        signature = signer.signature(
            signer.string_to_sign(request, signer.canonical_request(request)), request
        )
        names = signer.signed_headers(signer.headers_to_sign(request))
        credential = f"{keys['AccessKeyId']}/{timestamp[:8]}/{scope.region}/{scope.service}/aws4_request"
        headers.append(
            (
                b"authorization",
                f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}".encode(),
            )
        )
        if self._payload in _SIGNED_CHUNKS:
            self.chunks = ChunkSigner(keys["SecretAccessKey"], scope, timestamp, signature)
        return replace(head, headers=tuple(headers))


class ChunkSigner:
    """The body of a streamed upload (`aws-chunked`), every chunk signed anew; the same length."""

    def __init__(self, secret_key: str, scope: _Scope, timestamp: str, seed: str) -> None:
        self._key = _signing_key(secret_key, timestamp[:8], scope.region, scope.service)
        self._prefix = f"{timestamp}\n{timestamp[:8]}/{scope.region}/{scope.service}/aws4_request"
        self._previous = seed
        self._buffer = b""
        self._size: int | None = None
        self._in_trailer = False
        self._trailer = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What may leave. UntrustedInputError if this is no such body."""
        self._buffer += data
        while not self._in_trailer:
            if self._size is None:
                line, found, rest = self._buffer.partition(b"\r\n")
                if not found:
                    if len(self._buffer) > _LINE_LIMIT_BYTES:
                        raise UntrustedInputError("a chunk of the upload has no header")
                    return
                match = _CHUNK_LINE.fullmatch(line)
                if match is None:
                    raise UntrustedInputError("a chunk of the upload carries no signature")
                self._size, self._buffer = int(match[1], 16), rest
                if self._size > _CHUNK_LIMIT_BYTES:
                    raise UntrustedInputError(f"a chunk of the upload is over {_CHUNK_LIMIT_BYTES >> 20} MiB")
            end = self._size + (2 if self._size else 0)
            if len(self._buffer) < end:
                return
            content, self._buffer = self._buffer[: self._size], self._buffer[end:]
            self._in_trailer = not self._size
            yield self._signed(content)
            self._size = None
        self._trailer += self._buffer
        self._buffer = b""
        if len(self._trailer) > _LINE_LIMIT_BYTES:
            raise UntrustedInputError("the trailers of the upload are too long")

    def end(self) -> bytes:
        """The trailers, their signature made anew."""
        if not self._in_trailer:
            raise UntrustedInputError("the upload ends within a chunk")
        kept = [
            line
            for line in self._trailer.split(b"\r\n")
            if line and not line.lower().startswith(b"x-amz-trailer-signature:")
        ]
        if not kept:
            return self._trailer
        canonical = b"".join(line + b"\n" for line in kept)
        text = "\n".join(
            ["AWS4-HMAC-SHA256-TRAILER", self._prefix, self._previous, hashlib.sha256(canonical).hexdigest()]
        )
        signature = hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
        lines = [*kept, b"x-amz-trailer-signature:" + signature.encode(), b"", b""]
        return b"\r\n".join(lines)

    def _signed(self, content: bytes) -> bytes:
        text = "\n".join(
            [
                "AWS4-HMAC-SHA256-PAYLOAD",
                self._prefix,
                self._previous,
                _EMPTY_SHA256,
                hashlib.sha256(content).hexdigest(),
            ]
        )
        self._previous = hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()
        head = b"%x;chunk-signature=%b\r\n" % (len(content), self._previous.encode())
        return head + content + (b"\r\n" if content else b"")


def _scope(head: RequestHead, placeholder: bytes) -> _Scope | None:
    """What the client signed, if it signed with the placeholder."""
    for value in head.values(b"authorization"):
        match = _AUTHORIZATION.fullmatch(value)
        if match is not None and match[1] == placeholder:
            return _Scope(
                region=match[3].decode(),
                service=match[4].decode(),
                signed=tuple(match[5].split(b";")),
                presigned=False,
            )
    query = dict(parse_qsl(head.query or "", keep_blank_values=True))
    found = _SCOPE.fullmatch(query.get("X-Amz-Credential", ""))
    if found is None or found[1].encode() != placeholder:
        return None
    signed = query.get("X-Amz-SignedHeaders", "host").encode().split(b";")
    return _Scope(region=found[3], service=found[4], signed=tuple(signed), presigned=True)


def _presigned(
    head: RequestHead, scope: _Scope, keys: dict[str, str], signer: Any, timestamp: str
) -> RequestHead:
    """A presigned URL (the signature in its query)."""
    mine = {"X-Amz-Signature", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Security-Token"}
    pairs = [pair for pair in parse_qsl(head.query or "", keep_blank_values=True) if pair[0] not in mine]
    pairs += [
        (
            "X-Amz-Credential",
            f"{keys['AccessKeyId']}/{timestamp[:8]}/{scope.region}/{scope.service}/aws4_request",
        ),
        ("X-Amz-Date", timestamp),
    ]
    if keys.get("SessionToken"):
        pairs.append(("X-Amz-Security-Token", keys["SessionToken"]))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    head = replace(head, query=query)
    signed = [pair for pair in head.headers if pair[0] in set(scope.signed) | {b"host"}]
    request = _request(head, [*signed, (b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD")], timestamp, b"")
    canonical = signer.canonical_request(request).replace("x-amz-content-sha256:UNSIGNED-PAYLOAD\n", "")
    canonical = canonical.replace(";x-amz-content-sha256", "")
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    return replace(head, query=f"{query}&X-Amz-Signature={signature}")


def _request(head: RequestHead, headers: list[tuple[bytes, bytes]], timestamp: str, body: bytes) -> Any:
    """What botocore signs: AWSRequest, which has no types."""
    from botocore.awsrequest import AWSRequest  # deferred: a tenth of a second, and only for AWS

    request = AWSRequest(
        method=head.method, url=f"https://{head.untrusted_authority}{head.target}", data=body
    )
    for name, value in headers:
        request.headers[name.decode()] = value.decode("latin-1")
    request.headers["host"] = head.untrusted_authority
    request.context["timestamp"] = timestamp
    return request


def _signer(keys: dict[str, str], scope: _Scope) -> Any:
    """botocore's signer (it has no types)."""
    try:
        from botocore import auth
        from botocore.credentials import Credentials
    except ImportError:
        raise CredentialError(
            "requests to AWS cannot be signed: botocore is not installed",
            resolution="pipx inject cloister botocore   (or: pip install 'cloister[aws]')",
        ) from None
    credentials = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys.get("SessionToken"))
    kind = auth.S3SigV4Auth if scope.service == "s3" else auth.SigV4Auth
    return kind(credentials, scope.service, scope.region)


def _signing_key(secret_key: str, date: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _keys(value: Secret) -> dict[str, str]:
    try:
        found = json.loads(value.reveal())
        return {key: str(found[key]) for key in ("AccessKeyId", "SecretAccessKey")} | (
            {"SessionToken": str(found["SessionToken"])} if found.get("SessionToken") else {}
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CredentialError(
            f'the value of credential "{value.name}" is no key of AWS: expected JSON with AccessKeyId and '
            "SecretAccessKey",
            resolution="aws configure export-credentials --format process   prints it",
        ) from None
