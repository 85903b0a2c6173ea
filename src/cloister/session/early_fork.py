"""Fork the gateway before this process imports anything: it needs as long to load as all that follows here.

Rule 1: imports nothing but built-in modules. `socket` itself (with `selectors` and `enum`) costs as much as
the fork; its C part makes the pair, and both sides wrap their end later.
"""

from __future__ import annotations

import _socket
import os


def fork_gateway() -> tuple[int, int, int]:
    """Returns the gateway's pid, our end of its control socket, and the read end of its CA bundle's pipe."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    ca_read, ca_write = os.pipe()
    pid = os.fork()
    if pid:
        theirs.close()
        os.close(ca_write)
        return pid, ours.detach(), ca_read
    code = 1
    try:
        ours.close()
        os.close(ca_read)
        from cloister.session import gateway_child

        code = gateway_child.main(theirs.detach(), ca_write)
    finally:
        os._exit(code)
