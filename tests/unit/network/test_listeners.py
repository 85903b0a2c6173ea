"""Whether something listens in a process's network namespace: sockets of this process, and texts of proc(5)."""

from __future__ import annotations

import os
import socket

import pytest

from cloister.network import listeners

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1
   1: 0100007F:0BB9 0200007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1
   2: short
"""


@pytest.mark.parametrize(("port", "inodes"), [(3000, {4711}), (3001, set()), (80, set())])
def test_only_listening_sockets_count(port: int, inodes: set[int]) -> None:
    assert listeners.listening_inodes(TABLE, port) == inodes


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_process_that_listens(family: socket.AddressFamily, address: str) -> None:
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        assert listeners.listens(os.getpid(), port) is True
    assert listeners.listens(os.getpid(), port) is False


def test_a_process_that_is_gone_is_not_known() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert listeners.listens(child, 80) is None
