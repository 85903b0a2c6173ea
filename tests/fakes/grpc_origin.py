"""A gRPC server over TLS with one bidirectional stream, for whoever brings the right token."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import grpc

from cloister.gateway.authority import Authority

METHOD = "/cloister.Echo/Talk"


class GrpcOrigin:
    """Answers each message of `METHOD` at once with `echo: ` before it; ends with the trailer `count`.

    `fail` as a message ends the stream with NOT_FOUND. `authority` is the gateway's kind: it hands out its leaves as PEM.
    """

    def __init__(self, authority: Authority, name: str, *, token: str) -> None:
        self.seen: list[bytes] = []
        self._token = token
        leaf = authority.leaf(name)
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        handler = grpc.method_handlers_generic_handler(
            "cloister.Echo", {"Talk": grpc.stream_stream_rpc_method_handler(self._talk)}
        )
        self._server.add_generic_rpc_handlers((handler,))
        credentials = grpc.ssl_server_credentials([(leaf.private_key, leaf.certificate)])
        self.port = int(self._server.add_secure_port("127.0.0.1:0", credentials))

    def _talk(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:  # grpc has no types
        if ("authorization", f"Bearer {self._token}") not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        for message in messages:
            self.seen.append(message)
            if message == b"fail":
                context.abort(grpc.StatusCode.NOT_FOUND, f"nothing here for {self._token}")
            yield b"echo: " + message
        context.set_trailing_metadata((("count", str(len(self.seen))),))

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait(10)
