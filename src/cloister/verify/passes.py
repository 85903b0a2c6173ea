"""What a pass of the probes needs, in a sandbox of the verification's own and in a live one."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from cloister.errors import UsageError
from cloister.sandbox import plan as plans
from cloister.sandbox import registry
from cloister.session import attach
from cloister.verify import overlay, verdict
from cloister.verify.attacker import COMMAND, Attacker
from cloister.verify.probes import LATER, Probe
from cloister.verify.verdict import Told
from cloister.verify.witnesses import Witnesses

PASS_TIMEOUT_S = 180.0
PRIVATE = (".ssh/id_ed25519", ".aws/credentials", ".config/gh/hosts.yml", ".netrc", ".bash_history")
TEMPORARY = "/tmp"  # noqa: S108 - the sandbox's own

Progress = Callable[[str, str], None]  # pass, id


@contextmanager
def witnesses() -> Iterator[Witnesses]:
    found = Witnesses()
    try:
        yield found
    finally:
        found.close()


@contextmanager
def marked() -> Iterator[str]:
    """A name for this process that a sandbox could find if it saw the host's processes."""
    mark = f"cvm{os.urandom(5).hex()}"
    with open("/proc/self/comm", "r+", encoding="utf-8") as file:
        before = file.read().strip()
    _rename(mark)
    try:
        yield mark
    finally:
        _rename(before)


def _rename(name: str) -> None:
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(name)


def enter(record: registry.Record | None, environ: Mapping[str, str]) -> int:
    """In a child: the probes as a later process."""
    if record is None:
        raise UsageError("the sandbox has ended")
    return attach.execute(record, attach.Command(argv=COMMAND, directory=TEMPORARY), environ)


def attack(
    attacker: Attacker,
    config: Mapping[str, object],
    name: str,
    progress: Progress,
    begun: Callable[[], None] = lambda: None,
) -> dict[str, Told]:
    return heard(attacker.lines(config, PASS_TIMEOUT_S), name, progress, begun)


def heard(
    lines: Iterator[bytes], name: str, progress: Progress, begun: Callable[[], None] = lambda: None
) -> dict[str, Told]:
    """What the lines say. `begun` is called at each of them."""
    found: dict[str, Told] = {}
    for line in lines:
        begun()
        parsed = verdict.parse(line)
        if parsed is not None:
            found[parsed[0]] = parsed[1]
            progress(name, parsed[0])
    return found


def config(witnesses: Witnesses, *, ids: Sequence[str], workspace: str, **more: object) -> dict[str, object]:
    return {
        "only": list(ids),
        "names": overlay.NAMES,
        "tcp_port": witnesses.tcp.getsockname()[1],
        "udp_port": witnesses.udp.getsockname()[1],
        "origin_port": witnesses.https.getsockname()[1],
        "private_answers": len(overlay.ANSWERS["private"]),
        "abstract": witnesses.abstract_name,
        "host_addresses": _own_addresses(),
        "workspace": workspace,
        **more,
    }


def _own_addresses() -> list[str]:
    """The address that this host would speak from; connect(2) of a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(sock.getsockname()[0])]


def limit(plan: plans.Plan, name: str) -> int:
    sandbox = plan["sandbox"]
    found = sandbox.get(name) if isinstance(sandbox, dict) else None
    return found if isinstance(found, int) else 0


def with_later(chosen: Sequence[Probe]) -> list[str]:
    ids = [probe.id for probe in chosen]
    return [*ids, *(name for name in LATER if "K-7" in ids and name not in ids)]
