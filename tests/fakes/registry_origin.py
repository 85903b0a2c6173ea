"""Private registries: npm's, which wants a Bearer token, and a Python index, which wants Basic. One package each."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable

from tests.fakes.web_origin import Answer, Request

VERSION = "1.2.3"


def npm_registry(name: str, token: str) -> Callable[[Request], Answer]:
    """The registry `https://NAME/` with the package `widget`."""
    tarball = _tarball({"package.json": json.dumps({"name": "widget", "version": VERSION})})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
    dist = {"tarball": f"https://{name}/widget/-/widget-{VERSION}.tgz", "integrity": integrity}
    packument = {
        "name": "widget",
        "dist-tags": {"latest": VERSION},
        "versions": {VERSION: {"name": "widget", "version": VERSION, "dist": dist}},
    }

    def respond(request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {token}":
            return Answer(status=401, body=b'{"error": "unauthorized"}')
        if request.path == "/widget":
            return Answer(headers={"Content-Type": "application/json"}, body=json.dumps(packument).encode())
        if request.path.endswith(".tgz"):
            return Answer(headers={"Content-Type": "application/octet-stream"}, body=tarball)
        return Answer(status=404, body=b'{"error": "not found"}')

    return respond


def python_index(user: str, password: str) -> Callable[[Request], Answer]:
    """The index `/simple/` with the wheel `widget`."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    wheel = _wheel()
    file = f"widget-{VERSION}-py3-none-any.whl"
    page = f'<a href="/files/{file}#sha256={hashlib.sha256(wheel).hexdigest()}">{file}</a>'

    def respond(request: Request) -> Answer:
        if request.headers.get("authorization") != wanted:
            return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="index"'})
        if request.path == "/simple/widget/":
            return Answer(headers={"Content-Type": "text/html"}, body=page.encode())
        if request.path == f"/files/{file}":
            return Answer(headers={"Content-Type": "application/zip"}, body=wheel)
        return Answer(status=404)

    return respond


def _tarball(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _wheel() -> bytes:
    buffer = io.BytesIO()
    about = f"widget-{VERSION}.dist-info"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("widget.py", f"VERSION = {VERSION!r}\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: widget\nVersion: {VERSION}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(
            f"{about}/RECORD", f"widget.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n"
        )
    return buffer.getvalue()
