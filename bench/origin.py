"""An origin in a process of its own: TLS on one port, idle cleartext connections on another.

`GET /bytes/N` sends N bytes, anything else two. Prints its two ports as one line, ends when its input ends.
argv: CERTIFICATE_AND_KEY.pem
"""

from __future__ import annotations

import resource
import selectors
import socket
import ssl
import sys
import threading

CHUNK = b"\0" * (1 << 20)
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    web = socket.create_server(("127.0.0.1", 0), backlog=128)
    idle = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=serve_web, args=(web, context), daemon=True).start()
    threading.Thread(target=serve_idle, args=(idle,), daemon=True).start()
    print(web.getsockname()[1], idle.getsockname()[1], flush=True)
    sys.stdin.read()


def serve_web(listener: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(connection, context), daemon=True).start()


def answer(plain: socket.socket, context: ssl.SSLContext) -> None:
    try:
        with context.wrap_socket(plain, server_side=True) as connection:
            received = b""
            while data := connection.recv(65536):
                received += data
                while b"\r\n\r\n" in received:
                    head, _, received = received.partition(b"\r\n\r\n")
                    path = head.split(b" ", 2)[1]
                    if path.startswith(b"/bytes/"):
                        send(connection, int(path.rpartition(b"/")[2]))
                    else:
                        connection.sendall(SMALL)
    except OSError:
        return  # the client has gone


def send(connection: ssl.SSLSocket, count: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % count)
    while count > 0:
        part = CHUNK if count >= len(CHUNK) else CHUNK[:count]
        connection.sendall(part)
        count -= len(part)


def serve_idle(listener: socket.socket) -> None:
    """Hold connections until the other side closes them. Greets with a byte: that proves the whole way."""
    selector = selectors.DefaultSelector()
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                connection.setblocking(False)
                connection.send(b".")
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.fileobj  # type: ignore[assignment]  # what was registered above
            try:
                gone = not connection.recv(4096)
            except OSError:
                gone = True
            if gone:
                selector.unregister(connection)
                connection.close()


if __name__ == "__main__":
    main()
