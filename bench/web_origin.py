"""The origin of the interception figures: nginx, for its speed, and a server behind it for uploads and events.

Every request must carry the real value; another is answered 403, so that no figure is one of refusals.
`/` is two bytes, `/big` a file of any size, `/upload` reads a body, `/events/N` is N server-sent events, each with the
time (CLOCK_MONOTONIC, nanoseconds) at which it was sent.
"""

from __future__ import annotations

import shutil
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

from world import UnavailableError

EVENT_INTERVAL_S = 0.02
PROGRAMS = "nginx", "wrk", "h2load", "curl"  # this and its clients
PACKAGES = "nginx-light wrk nghttp2-client curl"

CONFIGURATION = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; keepalive_requests 100000000; http2_max_concurrent_streams 256; client_max_body_size 0;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {certificate}; ssl_certificate_key {certificate};
    if ($http_authorization != "Bearer {value}") {{ return 403; }}
    location = / {{ return 200 ok; }}
    location = /big {{ alias {directory}/big; }}
    location / {{
      proxy_pass http://unix:{directory}/backend.sock:; proxy_http_version 1.1;
      proxy_request_buffering off; proxy_buffering off;
    }}
  }}
}}
"""


class Backend(socketserver.StreamRequestHandler):
    """HTTP/1.1 as nginx speaks it: well-formed, a request a connection."""

    def handle(self) -> None:
        target = self.rfile.readline().split(b" ")[1]
        length, chunked = 0, False
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            name, _, value = line.lower().partition(b":")
            length = int(value) if name == b"content-length" else length
            chunked = chunked or (name == b"transfer-encoding" and b"chunked" in value)
        if target.startswith(b"/events/"):
            self._events(int(target.rpartition(b"/")[2]))
            return
        count = self._chunks() if chunked else self._take(length)
        body = b"%d" % count
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    def _events(self, count: int) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(count):
            self.wfile.write(b"data: %d\n\n" % time.monotonic_ns())
            time.sleep(EVENT_INTERVAL_S)

    def _chunks(self) -> int:
        total = 0
        while size := int(self.rfile.readline(), 16):
            total += self._take(size)
            self.rfile.readline()
        return total

    def _take(self, count: int) -> int:
        buffer, left = memoryview(bytearray(1 << 18)), count
        while left and (got := self.rfile.readinto(buffer[:left])):
            left -= got
        return count - left


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


class WebOrigin:
    """Serves on `port` of 127.0.0.1 as long as its `with` block lasts."""

    def __init__(self, directory: Path, *, certificate: Path, value: str, big_bytes: int) -> None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise UnavailableError(f"{', '.join(missing)} not installed (apt-get install {PACKAGES})")
        directory.mkdir()
        with (directory / "big").open("wb") as file:
            file.truncate(big_bytes)
        directory.chmod(0o755)  # nginx's worker is another user if this is root
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self._configuration = directory / "nginx.conf"
        self._configuration.write_text(
            CONFIGURATION.format(directory=directory, port=self.port, certificate=certificate, value=value)
        )
        self._backend = _Server(str(directory / "backend.sock"), Backend)
        (directory / "backend.sock").chmod(0o666)
        self._errors = directory / "error.log"

    def __enter__(self) -> Self:
        threading.Thread(target=self._backend.serve_forever, daemon=True).start()
        self._nginx = subprocess.Popen(["nginx", "-c", str(self._configuration)], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end and self._nginx.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
        raise RuntimeError(f"nginx did not start: {self._errors.read_text()[-200:]}")

    def __exit__(self, *_: object) -> None:
        self._nginx.terminate()
        self._nginx.wait(10)
        self._backend.shutdown()
        self._backend.server_close()
