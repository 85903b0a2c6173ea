"""Messages that come while a connection stays open, with a credential: server-sent events, gRPC, WebSocket."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloister.gateway.authority import Authority as LeafAuthority
from tests.e2e.credentialed import API, MASKED, PROTOCOLS, TOKEN, WAYS, Configure, Open, trace
from tests.fakes.grpc_origin import METHOD, GrpcOrigin
from tests.fakes.origins import Authority
from tests.fakes.web_origin import Answer, Request
from tests.fakes.websocket_origin import websocket_origin

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]


@PROTOCOLS
@pytest.mark.parametrize("upstream", ["http/1.1", "h2"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_server_sent_events_arrive_one_by_one(
    configure: Configure, web: Open, protocol: str, upstream: str, coding: str
) -> None:
    """The origin says the next only when the client has got the last, which is shorter than the token."""
    received = threading.Semaphore(0)

    def events() -> Iterator[bytes]:
        for number in range(5):
            yield b"data: %d\n\n" % number
            if not received.acquire(timeout=30):
                return
        yield b"data: " + TOKEN.encode() + b"\n\n"

    def respond(_: Request) -> Answer:
        headers = {"Content-Type": "text/event-stream", "Content-Encoding": coding}
        return Answer(headers=headers, body=gzipped(events()) if coding == "gzip" else events())

    origin = web(API, respond=respond, protocols=(upstream,))
    cloister = configure({API: origin.port})
    option = "--http2" if protocol == "h2" else "--http1.1"
    curl = ("curl", "-sSN", "--compressed", "--max-time", "40", option, f"https://{API}/events")
    process = cloister.start("run", "--", *curl)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("data: "):
            received.release()
    assert process.wait(20) == 0
    assert "".join(lines) == "".join(f"data: {n}\n\n" for n in range(5)) + f"data: {MASKED}\n\n"


def gzipped(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Each part as far as it can be unpacked without the next."""
    packer = zlib.compressobj(wbits=31)
    for part in parts:
        yield packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


GRPC_CLIENT = f"""
import os, queue, grpc
roots = open(os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"], "rb").read()
metadata = (("authorization", "Bearer " + os.environ["API_TOKEN"]),)
with grpc.secure_channel("{API}:443", grpc.ssl_channel_credentials(roots)) as channel:
    talk = channel.stream_stream("{METHOD}")
    for last in (None, b"fail"):
        outgoing = queue.Queue()
        answers = talk(iter(outgoing.get, None), metadata=metadata, timeout=20)
        for number in range(50):
            outgoing.put(b"%d " % number + b"x" * 2000 * number)
            assert next(answers) == b"echo: %d " % number + b"x" * 2000 * number
        outgoing.put(last)
        try:
            print(list(answers), answers.code().name, dict(answers.trailing_metadata()))
        except grpc.RpcError as error:
            print(error.code().name, error.details())
"""


@WAYS
def test_grpc_in_both_directions(configure: Configure, client_packages: Path, way: str) -> None:
    """A stream in which each side waits for the other's message, its trailers, and a status with a message."""
    leaves = LeafAuthority("grpc-origin")
    with GrpcOrigin(leaves, API, token=TOKEN) as origin:
        cloister = configure({API: origin.port}, read_only=(client_packages,))
        ca = cloister.home / "ca.pem"
        cloister.write(ca, ca.read_text() + leaves.pem.decode())
        cloister.write(cloister.project / "client.py", GRPC_CLIENT)
        done = cloister.sh(f"{way} PYTHONPATH={client_packages} exec python3 client.py")
    expected = ["[] OK {'count': '50'}", f"NOT_FOUND nothing here for {MASKED}"]
    assert (done.code, done.out.splitlines()) == (0, expected), (done, cloister.events())
    assert len(origin.seen) == 101
    trace(cloister, done)


WEBSOCKET_CLIENT = f"""
import os, socket, ssl, urllib.parse
from wsproto import ConnectionType, WSConnection
from wsproto.events import *
from wsproto.extensions import PerMessageDeflate

proxy = urllib.parse.urlsplit(os.environ.get("https_proxy", ""))
plain = socket.create_connection((proxy.hostname, proxy.port) if proxy.hostname else ("{API}", 443), 20)
if proxy.hostname:
    plain.sendall(b"CONNECT {API}:443 HTTP/1.1\\r\\nHost: {API}:443\\r\\n\\r\\n")
    assert b" 200 " in plain.recv(4096)
sock = ssl.create_default_context().wrap_socket(plain, server_hostname="{API}")
websocket = WSConnection(ConnectionType.CLIENT)
headers = [(b"authorization", b"Bearer " + os.environb[b"API_TOKEN"])]
sock.sendall(websocket.send(Request(host="{API}", target="/chat", extra_headers=headers, extensions=[PerMessageDeflate()])))

def receive():
    parts = []
    while True:
        for event in websocket.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                parts.append(event.data)
                if event.message_finished:
                    return (b"" if isinstance(event, BytesMessage) else "").join(parts)
            elif not isinstance(event, AcceptConnection):
                return event
        data = sock.recv(65536)
        websocket.receive_data(data or None)

print(receive())
sock.sendall(websocket.send(TextMessage(data="hel", message_finished=False)) + websocket.send(TextMessage(data="lo")))
print(receive())
big = os.urandom(300000)
sock.sendall(websocket.send(BytesMessage(data=big)))
print(receive() == big)
sock.sendall(websocket.send(Ping(payload=b"ping")))
print(bytes(receive().payload))
sock.sendall(websocket.send(CloseConnection(code=1000)))
print(receive().code)
"""


@WAYS
def test_websocket(configure: Configure, authority: Authority, client_packages: Path, way: str) -> None:
    """Compressed, in fragments, large and binary, pinged, closed; what the origin says of the token is masked."""
    origin = websocket_origin(authority.context((API,)), TOKEN)
    try:
        cloister = configure({API: origin.port}, read_only=(client_packages,))
        cloister.write(cloister.project / "client.py", WEBSOCKET_CLIENT)
        done = cloister.sh(f"{way} PYTHONPATH={client_packages} exec python3 client.py")
        expected = [f"welcome, {MASKED}", "hello", "True", "b'ping'", "1000"]
        assert (done.code, done.out.splitlines()) == (0, expected), (done, cloister.events())
        assert origin.seen[0].ended.wait(10)
    finally:
        origin.close()
    trace(cloister, done)


def test_websocket_of_node(configure: Configure, authority: Authority) -> None:
    """The client that Node brings knows neither proxy variables nor headers: it gets in without knowing of a token."""
    origin = websocket_origin(authority.context((API,)), TOKEN)
    try:
        cloister = configure({API: origin.port})
        script = f"""
const socket = new WebSocket("wss://{API}/chat");
socket.onmessage = ({{ data }}) => {{
  console.log(data);
  if (data.startsWith("welcome")) socket.send("hello");
  else socket.close(1000);
}};
socket.onerror = (event) => console.log("error", event.message);
socket.onclose = ({{ code }}) => console.log(code);
"""
        cloister.write(cloister.project / "client.mjs", script)
        done = cloister.run("node", "--experimental-websocket", "client.mjs")
        expected = [f"welcome, {MASKED}", "hello", "1000"]
        assert (done.code, done.out.splitlines()) == (0, expected), (done, cloister.events())
    finally:
        origin.close()
    trace(cloister, done)
