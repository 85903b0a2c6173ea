"""A WebSocket server over TLS (wsproto): greets with the token that the handshake brought, then echoes until it is closed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

from tests.fakes.origin import Origin, Seen
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate


def websocket_origin(context: ssl.SSLContext, token: str) -> Origin:
    """Rejects whoever brings no `Bearer token`. Texts and bytes come back as they came."""
    return Origin(lambda seen, sock: serve(seen, sock, token), tls=context)


def serve(seen: Seen, sock: socket.socket, token: str) -> None:
    """One connection."""
    sock.settimeout(60)
    websocket = WSConnection(ConnectionType.SERVER)
    while data := sock.recv(65536):
        seen.data += data
        websocket.receive_data(data)
        for event in websocket.events():
            for answer in _answers(event, token):
                sock.sendall(websocket.send(answer))
            if isinstance(event, CloseConnection):
                seen.ended.set()
                return


def _answers(event: Event, token: str) -> Iterator[Event]:
    match event:
        case Request(extra_headers=headers):
            if (b"authorization", f"Bearer {token}".encode()) not in headers:
                yield RejectConnection(status_code=401)
                return
            yield AcceptConnection(extensions=[PerMessageDeflate()])
            yield TextMessage(data=f"welcome, {token}")
        case TextMessage(data=text, message_finished=finished):
            yield TextMessage(data=text, message_finished=finished)
        case BytesMessage(data=data, message_finished=finished):
            yield BytesMessage(data=bytes(data), message_finished=finished)
        case Ping() | CloseConnection():
            yield event.response()
