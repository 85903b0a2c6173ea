"""What a sandbox says of itself: the script in a real shell, and words that are none of its own."""

from __future__ import annotations

import socket
import subprocess

import pytest

from cloister.session import look_within


def test_the_script_tells_of_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(
            ["/bin/sh", "-c", look_within._SCRIPT], capture_output=True, text=True, check=False
        )
        said = look_within.parse(done.stdout)
        assert said.listens(server.getsockname()[1]) is True
    assert said.processes and said.processes > 1
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "memory", "processes"),
    [
        ("", None, None),
        ("memory 12\nprocesses 3\n", 12, 3),
        ("memory max\nprocesses -3\n", None, None),
        (f"memory {'9' * 5000}\nprocesses ٣\n", None, None),
        ("memory\nprocesses 1 2\n\x1b]0;x\x07 1\n", None, None),
    ],
)
def test_what_it_says_is_a_number_or_nothing(text: str, memory: int | None, processes: int | None) -> None:
    said = look_within.parse(text)
    assert (said.memory_bytes, said.processes, said.listens(80)) == (memory, processes, None)


def test_nobody_listens_where_a_table_is_empty() -> None:
    said = look_within.parse(
        "tcp sl local_address rem_address st\ntcp 0: 0100007F:0050 00000000:0000 01 0 0 0 0 0 7\n"
    )
    assert said.listens(80) is False
