"""A bucket of S3's that takes only what is signed with its key: SigV4, with botocore's signer as the judge.

Chunked uploads with a trailing checksum (what boto3 sends by default over TLS) are unpacked and their CRC-32 compared.
"""

from __future__ import annotations

import base64
import re
import zlib
from typing import Any
from urllib.parse import parse_qsl, urlencode

from tests.fakes.origins import Authority
from tests.fakes.web_origin import Answer, Request, WebOrigin

BUCKET = "cloister-test"
NAME = f"{BUCKET}.s3.eu-central-1.amazonaws.com"
REGION = "eu-central-1"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/s3/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})"
)


class S3Origin(WebOrigin):
    """`objects` by key. 403 SignatureDoesNotMatch for what the real key did not sign."""

    def __init__(self, authority: Authority, *, key_id: str, secret_key: str) -> None:
        super().__init__(authority, NAME, respond=self._serve_object)
        self.objects: dict[str, bytes] = {}
        self._key_id = key_id
        self._secret_key = secret_key

    def _serve_object(self, request: Request) -> Answer:
        path, _, query = request.path.partition("?")
        if not (
            self._is_presigned(request, path, query)
            if "X-Amz-Signature=" in query
            else self._is_signed(request)
        ):
            body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>"
            return Answer(status=403, headers={"Content-Type": "application/xml"}, body=body)
        if request.method == "PUT":
            self.objects[path] = _content(request)
            return Answer(headers={"ETag": '"1"'})
        if path not in self.objects:
            return Answer(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>")
        return Answer(headers={"ETag": '"1"'}, body=self.objects[path])

    def _is_signed(self, request: Request) -> bool:
        found = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if found is None or found[1] != self._key_id or found[2] != REGION:
            return False
        signed = {name: request.headers[name] for name in found[3].split(";")}
        return found[4] == self._signature(
            request.method, request.path, signed, request.headers["x-amz-date"]
        )

    def _is_presigned(self, request: Request, path: str, query: str) -> bool:
        fields = dict(parse_qsl(query, keep_blank_values=True))
        signature = fields.pop("X-Amz-Signature")
        if not fields["X-Amz-Credential"].startswith(f"{self._key_id}/"):
            return False
        signed = {name: request.headers[name] for name in fields["X-Amz-SignedHeaders"].split(";")}
        return signature == self._signature(
            request.method, f"{path}?{urlencode(fields)}", signed, fields["X-Amz-Date"], presigned=True
        )

    def _signature(
        self, method: str, target: str, signed: dict[str, str], timestamp: str, *, presigned: bool = False
    ) -> str:
        from botocore import auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        kind = auth.S3SigV4QueryAuth if presigned else auth.S3SigV4Auth
        signer: Any = kind(Credentials(self._key_id, self._secret_key), "s3", REGION)  # botocore has no types
        request = AWSRequest(method=method, url=f"https://{NAME}{target}", headers=signed)
        request.context["timestamp"] = timestamp
        canonical = signer.canonical_request(request)
        return str(signer.signature(signer.string_to_sign(request, canonical), request))


def _content(request: Request) -> bytes:
    """The object of an upload, plain or in aws-chunked parts. ValueError if its trailing checksum is wrong."""
    if "aws-chunked" not in request.headers.get("content-encoding", ""):
        return request.body
    content, rest = b"", request.body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            break
        content, rest = content + rest[:length], rest[length + 2 :]
    if len(content) != int(request.headers["x-amz-decoded-content-length"]):
        raise ValueError("the upload has another length than it says")
    name, _, value = rest.partition(b"\r\n")[0].partition(b":")
    if name == b"x-amz-checksum-crc32" and base64.b64decode(value) != zlib.crc32(content).to_bytes(4, "big"):
        raise ValueError("the upload has another checksum than it says")
    if request.headers.get("x-amz-trailer", "").encode() != name:
        raise ValueError(f"the upload ends in {rest!r}, without the trailer that it announced")
    return content
