"""A git server over HTTPS: `git http-backend` behind a TLS socket."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.fakes.origins import Authority

NAME = "git.example.test"


def _git(*arguments: str, cwd: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.test",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.test",
    }
    subprocess.run(["git", *arguments], cwd=cwd, env=environment, check=True, capture_output=True)


class GitOrigin:
    """Serves one repository, `path`, with one commit. With `password`: to x-access-token only, and takes pushes.

    `watch` gets the path and head of every request.
    """

    def __init__(
        self,
        authority: Authority,
        *,
        password: str | None = None,
        name: str = NAME,
        path: str = "widget.git",
        port: int = 0,
        watch: Callable[[str, Message], None] = lambda _path, _headers: None,
    ) -> None:
        wanted = base64.b64encode(f"x-access-token:{password}".encode()).decode()
        self.services: list[str] = []  # what was asked of it, with the right password
        self._root = Path(tempfile.mkdtemp())
        work = self._root / "work"
        work.mkdir()
        _git("init", "-q", "-b", "main", cwd=work)
        (work / "README").write_text("a widget\n")
        _git("add", "README", cwd=work)
        _git("commit", "-q", "-m", "first", cwd=work)
        self._bare = self._root / path
        _git("clone", "-q", "--bare", str(work), str(self._bare), cwd=self._root)
        root = self._root
        services = self.services
        if password is not None:
            _git("config", "http.receivepack", "true", cwd=self._bare)
            _git("config", "receive.denyNonFastForwards", "false", cwd=self._bare)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def backend(self) -> None:
                path, _, query = self.path.partition("?")
                body = self._body()
                watch(self.path, self.headers)
                if password is not None and self.headers.get("Authorization") != f"Basic {wanted}":
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="git"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                services.append(query or path.rpartition("/")[2])
                environment = {
                    "PATH": os.environ["PATH"],
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }
                done = subprocess.run(
                    ["git", "http-backend"], input=body, env=environment, capture_output=True, check=False
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
                status = next((int(value.split()[0]) for field, value in fields if field == "Status"), 200)
                self.send_response(status)
                for field, value in fields:
                    if field != "Status":
                        self.send_header(field, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = backend

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, format: str, *arguments: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.socket = authority.context((name,)).wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = int(self._server.server_address[1])

    def refs(self) -> dict[str, str]:
        """The branches of the repository and the commits that they are at."""
        done = subprocess.run(
            ["git", "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads"],
            cwd=self._bare,
            check=True,
            capture_output=True,
            text=True,
        )
        return dict(line.split(" ") for line in done.stdout.splitlines())

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._root)
