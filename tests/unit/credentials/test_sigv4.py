"""Signed anew, a request is what botocore itself would have signed with the real key."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloister.credentials.sigv4 import Resigner
from cloister.errors import CredentialError
from cloister.messages import RequestHead
from cloister.secret import Secret

PLACEHOLDER = "AKIACLOISTERPLACEHOL"
REAL = {
    "AccessKeyId": "AKIAREALREALREALREAL",
    "SecretAccessKey": "real/secret+key",
    "SessionToken": "tok/en==",
}
HOST = "bucket.s3.eu-central-1.amazonaws.com"
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def signed_by_botocore(
    kind: type[Any], keys: Credentials, service: str, *, method: str, path: str, body: bytes, headers: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> AWSRequest:  # fmt: skip
    import botocore.auth

    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: NOW.replace(tzinfo=None))
    request = AWSRequest(method=method, url=f"https://{HOST}{path}", data=body, headers=headers)
    kind(keys, service, "eu-central-1").add_auth(request)
    return request


def head_of(request: AWSRequest) -> RequestHead:
    path, _, query = request.url.removeprefix(f"https://{HOST}").partition("?")
    headers = tuple((name.lower().encode(), value.encode()) for name, value in request.headers.items())
    return RequestHead(
        method=request.method, untrusted_authority=HOST, path=path, query=query or None, headers=headers
    )


def value(keys: dict[str, str] = REAL) -> Secret:
    return Secret("aws", json.dumps(keys).encode())


FAKE_KEYS = Credentials(PLACEHOLDER, "fake")
REAL_KEYS = Credentials(REAL["AccessKeyId"], REAL["SecretAccessKey"], REAL["SessionToken"])


@pytest.mark.parametrize(
    ("kind", "service", "method", "path", "body"),
    [
        (S3SigV4Auth, "s3", "GET", "/key%20with%20space?list-type=2&prefix=a%2Fb", b""),
        (S3SigV4Auth, "s3", "PUT", "/a/./b//c", b"content"),
        (SigV4Auth, "dynamodb", "POST", "/", b'{"TableName": "t"}'),
        (SigV4Auth, "execute-api", "GET", "/stage/%7Eme?b=2&a=1&a=0", b""),
    ],
)
def test_the_signature_is_botocores(  # noqa: PLR0917 - pytest's own
    kind: type[Any], service: str, method: str, path: str, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"X-Amz-Target": "x.y", "Content-Type": "application/json"}
    arguments: dict[str, Any] = {
        "method": method, "path": path, "body": body, "headers": headers, "monkeypatch": monkeypatch,
    }  # fmt: skip
    fake = signed_by_botocore(kind, FAKE_KEYS, service, **arguments)
    real = signed_by_botocore(kind, REAL_KEYS, service, **arguments)
    resigner = Resigner(head_of(fake), placeholder=PLACEHOLDER, value=value())
    assert resigner.applies
    signed = resigner.sign(head_of(fake), body=body, now=NOW)
    assert dict(signed.headers)[b"authorization"].decode() == real.headers["Authorization"]
    assert dict(signed.headers)[b"x-amz-security-token"] == b"tok/en=="
    assert PLACEHOLDER.encode() not in b"".join(value for _, value in signed.headers)


def test_a_presigned_url_is_signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {
        "method": "GET", "path": "/key", "body": b"", "headers": {}, "monkeypatch": monkeypatch,
    }  # fmt: skip
    fake = signed_by_botocore(S3SigV4QueryAuth, FAKE_KEYS, "s3", **arguments)
    real = signed_by_botocore(S3SigV4QueryAuth, REAL_KEYS, "s3", **arguments)
    signed = Resigner(head_of(fake), placeholder=PLACEHOLDER, value=value()).sign(head_of(fake), now=NOW)
    expected = dict(part.split("=", 1) for part in real.url.partition("?")[2].split("&"))
    found = dict(part.split("=", 1) for part in (signed.query or "").split("&"))
    assert found == expected


def test_what_is_not_signed_with_the_placeholder_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    head = RequestHead(method="GET", untrusted_authority=HOST, path="/public")
    resigner = Resigner(head, placeholder=PLACEHOLDER, value=value())
    assert not resigner.applies
    assert resigner.sign(head) is head


def test_signed_chunks_are_signed_again_and_keep_their_length() -> None:
    """The seed's and chunks' signatures of AWS's own example (SigV4, "Transferring payload in multiple chunks")."""
    keys = {
        "AccessKeyId": "AKIAIOSFODNN7EXAMPLE",
        "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    }
    now = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC)
    signed = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
    head = RequestHead(
        method="PUT",
        untrusted_authority="s3.amazonaws.com",
        path="/examplebucket/chunkObject.txt",
        headers=(
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
            (
                b"authorization",
                f"AWS4-HMAC-SHA256 Credential={PLACEHOLDER}/20130524/us-east-1/s3/aws4_request,"
                f"SignedHeaders={signed},Signature={'0' * 64}".encode(),
            ),
            (b"x-amz-content-sha256", b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
            (b"content-encoding", b"aws-chunked"),
            (b"x-amz-decoded-content-length", b"66560"),
            (b"content-length", b"66824"),
        ),
    )
    resigner = Resigner(head, placeholder=PLACEHOLDER, value=value(keys))
    made = dict(resigner.sign(head, now=now).headers)[b"authorization"].decode()
    assert made.endswith("Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9")
    zero = "0" * 64
    body = b"".join(
        f"{size:x};chunk-signature={zero}\r\n".encode() + b"a" * size + b"\r\n" for size in (65536, 1024, 0)
    )
    chunks = resigner.chunks
    assert chunks is not None
    out = (
        b"".join(b"".join(chunks.feed(body[at : at + 999])) for at in range(0, len(body), 999)) + chunks.end()
    )
    assert len(out) == len(body)
    for signature in (
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ):
        assert signature in out


def test_a_value_that_is_no_key_is_an_error_without_it() -> None:
    head = head_of_signed()
    with pytest.raises(CredentialError) as caught:
        Resigner(head, placeholder=PLACEHOLDER, value=Secret("aws", b"not json at all")).sign(head)
    assert "not json at all" not in str(caught.value)


def head_of_signed() -> RequestHead:
    text = f"AWS4-HMAC-SHA256 Credential={PLACEHOLDER}/20260102/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature={hashlib.sha256(b'').hexdigest()}"
    return RequestHead(
        method="GET", untrusted_authority=HOST, path="/", headers=((b"authorization", text.encode()),)
    )
