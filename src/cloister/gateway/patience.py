"""Leave the machine to the sandbox's start: load the rest of the gateway at the first packet, or a little later.

What the gateway imports takes as long as a sandbox takes to start, and both would compete for the same cores.
The sockets listen already and the kernel's backlog holds what comes, so nothing is lost by waiting.

Rule 1: built-in modules only: packets are kept as they came, and understood later (`control.py`).
Rule 2: no longer than PATIENCE_MS after the sockets are there.
"""

from __future__ import annotations

import _socket
import select

PATIENCE_MS = 100
LISTEN, PLUMBED = b'{"op": "listen"', b'{"op": "plumbed"'
_MESSAGE_LIMIT_BYTES = 64 * 1024
_DESCRIPTORS_LIMIT = 253  # SCM_MAX_FD
_INT_BYTES = 4

# A message of the control socket, and the descriptors that came with it.
Packet = tuple[bytes, tuple[int, ...]]


def wait(control: int) -> list[Packet]:
    """Take packets until all sockets are there, then wait for work. An empty packet, the last, is the end."""
    connection = _socket.socket(fileno=control)
    try:
        packets: list[Packet] = []
        poll = select.poll()
        while True:
            data, descriptors = _receive(connection)
            packets.append((data, descriptors))
            if not data:
                return packets
            if data.startswith(LISTEN):
                for descriptor in descriptors:
                    poll.register(descriptor, select.POLLIN)
            if data.startswith(PLUMBED):
                poll.register(control, select.POLLIN)
                poll.poll(PATIENCE_MS)
                return packets
    finally:
        connection.detach()


def _receive(connection: _socket.socket) -> Packet:
    try:
        data, ancillary, _, _ = connection.recvmsg(
            _MESSAGE_LIMIT_BYTES,
            _socket.CMSG_SPACE(_DESCRIPTORS_LIMIT * _INT_BYTES),
            _socket.MSG_CMSG_CLOEXEC,
        )
    except ConnectionResetError:  # the end, with something of ours unread
        return b"", ()
    numbers = b"".join(
        body for level, kind, body in ancillary if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
    )
    return data, tuple(memoryview(numbers).cast("i"))
