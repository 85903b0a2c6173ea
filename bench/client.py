"""The client of the network figures: the same program runs in the sandbox and directly.

client.py latency HOST PORT SECONDS [CONNECT_PORT CA]     median milliseconds of a small request, kept alive
client.py download HOST PORT BYTES [CONNECT_PORT CA]      megabytes a second
client.py idle HOST PORT COUNT                            opens COUNT connections, prints how many, waits
With CONNECT_PORT it connects to 127.0.0.1 itself, as if HOST were there.
"""

from __future__ import annotations

import resource
import selectors
import socket
import ssl
import statistics
import sys
import time

PATIENCE_S = 10
ANSWER = len(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def main() -> None:
    mode, host, port, amount, *direct = sys.argv[1:]
    if mode == "idle":
        idle(host, int(port), int(amount))
        return
    context = ssl.create_default_context(cafile=direct[1] if direct else None)
    target = ("127.0.0.1", int(direct[0])) if direct else (host, int(port))
    plain = socket.create_connection(target, timeout=30)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(plain, server_hostname=host) as connection:
        if mode == "latency":
            print(latency_ms(connection, host, float(amount)))
        else:
            print(download_mb_s(connection, host, int(amount)))


def latency_ms(connection: ssl.SSLSocket, host: str, seconds: float) -> float:
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    times = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        connection.sendall(request)
        missing = ANSWER
        while missing:
            missing -= len(connection.recv(missing)) or sys.exit("the connection ended")
        times.append(time.perf_counter() - start)
    return statistics.median(times[len(times) // 10 :]) * 1000


def download_mb_s(connection: ssl.SSLSocket, host: str, count: int) -> float:
    start = time.perf_counter()
    connection.sendall(f"GET /bytes/{count} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    buffer = bytearray(1 << 18)
    received = 0
    while received < count:  # the head is a few bytes more
        part = connection.recv_into(buffer)
        if not part:
            sys.exit(f"the connection ended after {received} bytes")
        received += part
    return count / (time.perf_counter() - start) / 1e6


def idle(host: str, port: int, count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    selector = selectors.DefaultSelector()
    opened = greeted = 0
    progress = time.monotonic()
    while greeted < count and time.monotonic() - progress < PATIENCE_S:
        while opened < count and opened - greeted < 500:
            connection = socket.socket(socket.AF_INET6 if ":" in str(address[0]) else socket.AF_INET)
            connection.setblocking(False)
            connection.connect_ex(address)
            selector.register(connection, selectors.EVENT_READ)
            opened += 1
        for key, _ in selector.select(timeout=1):
            selector.unregister(key.fileobj)
            held.append(key.fileobj)
            try:
                progress = time.monotonic()
                greeted += key.fileobj.recv(1) == b"."  # type: ignore[union-attr]  # a socket: see register
            except OSError as error:
                sys.exit(f"after {greeted} connections: {error}")
    print(greeted, flush=True)
    sys.stdin.readline()


held: list[object] = []

if __name__ == "__main__":
    main()
