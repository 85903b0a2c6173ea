"""A sandbox that asks for too much harms itself alone, and only as long as it asks (ATTACKS AV-1)."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.test_lifecycle import eventually, record, start_idle
from tests.fakes.origins import HttpsOrigin
from tests.world import Cloister

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(240)]

# In the sandbox: some processes open connections, say so, and hold them until they are told to stop; then one more request.
# A process may wait in vain for a connection that the kernel's backlog has no room for: that is as it must be.
FLOOD = """
import os, socket, subprocess, sys, time
children, each, host, port, first = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5].encode()
pipes = []
for _ in range(children):
    reading, writing = os.pipe()
    hold, stop = os.pipe()
    if os.fork() == 0:
        os.close(stop)
        held, refused = [], 0
        for _ in range(each):
            try:
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex((host, port))
                held.append(sock)
            except OSError:
                refused += 1
        end = time.monotonic() + 3
        for sock in held:
            sock.settimeout(max(0.001, end - time.monotonic()))
            try:
                sock.send(first)
            except OSError:
                refused += 1
        os.write(writing, b"%d\\n" % (len(held)))
        os.read(hold, 1)
        os._exit(0)
    os.close(writing)
    os.close(hold)
    pipes.append((reading, stop))
print("held", sum(int(os.read(reading, 100)) for reading, _ in pipes), flush=True)
sys.stdin.readline()
for _, stop in pipes:
    os.close(stop)
for _ in range(children):
    os.wait()
after = subprocess.run(["curl", "-sS", "--retry", "20", "--retry-all-errors", "--max-time", "60", "https://origin.example.test/after"],
                       capture_output=True, text=True)
print(after.stdout.strip() or after.stderr.strip(), flush=True)
sys.stdin.readline()
"""


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_kib(pid: int) -> int:
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1])


def flooded(
    cloister: Cloister, *arguments: str, afterwards: Callable[[], None] = lambda: None
) -> tuple[int, int]:
    """Flood, stop, ask once more: how many connections the sandbox had, and the gateway's memory then in KiB.

    Afterwards the gateway holds no more than it keeps for the next ones: idle connections to upstreams.
    """
    cloister.write(cloister.project / "flood.py", FLOOD)
    process = cloister.start("run", "--", "python3", "flood.py", *arguments)
    assert process.stdin is not None
    assert process.stdout is not None
    word, _, count = process.stdout.readline().partition(" ")
    assert word == "held", process.communicate(timeout=10)
    gateway = record(cloister)["others"][0][0]
    memory = resident_kib(gateway)
    process.stdin.write("stop\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer == "origin saw GET /after\n", (answer, cloister.events("alarm"))
    afterwards()
    eventually(lambda: descriptors(gateway) < 192, "the gateway lets go of what has ended")
    out, err = process.communicate("end\n", timeout=60)
    assert process.returncode == 0, (out, err)
    assert not [event for event in cloister.events("alarm") if "internal error" in str(event.get("reason"))]
    return int(count), memory


def test_av_1_ten_thousand_connections(reach: Cloister) -> None:
    """Most are never accepted; the gateway lives, stays small, and serves again once they have gone."""
    held, memory_kib = flooded(reach, "8", "1250", "127.0.0.1", "3128", "G")
    assert held == 10_000
    assert memory_kib < 150 * 1024


def test_av_1_thousands_of_tunnels(reach: Cloister) -> None:
    """Those that are joined with an upstream, which takes them, says nothing, and resets them in the end."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as upstream:  # the kernel accepts for it
        configuration = reach.home / ".config/cloister/config.toml"
        name = '"line.example.test" = "127.0.0.1:'
        before, _, after = configuration.read_text().partition(name)
        reach.configure(f"{before}{name}{upstream.getsockname()[1]}{after[after.index(chr(34)) :]}")
        held, memory_kib = flooded(
            reach, "4", "750", "line.example.test", "2222", "line\\n", afterwards=upstream.close
        )
    assert held == 3_000
    assert memory_kib < 150 * 1024


def test_av_1_without_descriptors_the_gateway_waits_and_goes_on(reach: Cloister) -> None:
    """The user's own limit is low: it takes what it can, says that it takes no more, and goes on afterwards."""
    reach.prefix = ["prlimit", "--nofile=512:512"]
    flooded(reach, "4", "100", "line.example.test", "2222", "line\\n")
    (alarm, *_) = reach.events("alarm")
    assert "connections are open" in str(alarm["text"]) or "out of descriptors" in str(alarm["text"])


def test_av_1_slow_clients_delay_nobody(reach: Cloister, origin: HttpsOrigin) -> None:
    """Some hundreds that have begun a sentence and do not end it."""
    idle = start_idle(reach)
    script = (
        "import socket, subprocess\n"
        "held = [socket.create_connection(('origin.example.test', 443), 20) for _ in range(400)]\n"
        "for sock in held: sock.sendall(b'\\x16\\x03\\x01\\x02')\n"
        "done = subprocess.run(['curl', '-sS', '--max-time', '8', 'https://origin.example.test/quick'])\n"
        "raise SystemExit(done.returncode)\n"
    )
    done = reach.run("python3", "-c", script)
    assert (done.code, done.out) == (0, "origin saw GET /quick\n"), done
    idle.communicate("", timeout=30)
