"""Two network namespaces: a host, in which the peers run, and an Internet, in which every address and port answers.

    peer's sandbox ── as the peer does it ── host (this process) ──── Internet: DNS, origins on 80 and 443, and
                                             192.168.77.2             whatever else is dialled, written down

Rule 1: the process that makes it leaves the machine's network and mount namespaces for good: nothing that runs here
        can reach the machine's network, and what is mounted goes with the last process.
Rule 2: the Internet's sockets are of a thread that is in the other namespace; they serve this process.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloister.system import linux
from cloister.verify.overlay import NAMES, RESOLVED
from cloister.verify.witnesses import Witnesses
from compare.dns import NameServer, addresses

HOST, GATEWAY = "192.168.77.2", "192.168.77.1"
USER, UID = "compare", 64100
ZONE = "cloister-verify.test"
# Public addresses: a gateway that refuses private and reserved ones takes these. Nothing here leads to their owners.
ADDRESSES = {
    name: f"151.101.64.{number}" for number, name in enumerate(sorted(set(NAMES) - set(RESOLVED)), start=10)
}
# What these resolve to, one after the other: where no allowed name should lead. They lead to our Internet all the same.
PRIVATE = {
    "private": ("10.0.0.1", "192.168.0.1", "169.254.169.254", "100.100.100.200", "127.0.0.1", "0.0.0.0"),
    "mixed": ("172.16.0.1",),
    "rebound": ("10.0.0.2",),
}
METADATA = {f"metadata.{cloud}.internal": ("169.254.169.254",) for cloud in ("google", "azure")}
_CATCH_ALL = 9
Arrived = tuple[tuple[str, bytes], ...]  # at which of the origin's names, or ""; what


@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """`base` is a scratch directory, `home` that of the ordinary user who runs the peers."""

    base: Path
    internet: Witnesses
    host: Witnesses
    lookups: list[tuple[str, bytes]]

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def ca_file(self) -> Path:
        return self.base / "ca.pem"

    def position(self) -> tuple[int, ...]:
        """How much has arrived until now."""
        return tuple(len(one) for one in self._parts())

    def since(self, position: tuple[int, ...]) -> Arrived:
        """All that has arrived since, anywhere: origins (with the name), other ports, the host's services, DNS."""
        parts = zip(self._parts(), position, strict=True)
        return tuple(one for part, start in parts for one in part[start:])

    def _parts(self) -> tuple[Arrived, ...]:
        return self.internet.arrived, self.host.arrived, tuple(self.lookups)


@contextmanager
def made(base: Path) -> Iterator[Laboratory]:
    """This process moves into it, for good."""
    linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWNS)
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_SLAVE)
    _user(base)
    _file(base, "/etc/hosts", f"127.0.0.1 localhost\n{HOST} {os.uname().nodename}\n")
    _file(base, "/etc/resolv.conf", f"nameserver {GATEWAY}\n")
    lookups: list[tuple[str, bytes]] = []
    internet, server = _internet(lambda words: lookups.append(("", words)))
    _ip(
        "link set lo up", f"address add {HOST}/24 dev lan", "link set lan up",
        f"route add default via {GATEWAY}",
    )  # fmt: skip
    host = Witnesses(address="0.0.0.0")
    found = Laboratory(base=base, internet=internet, host=host, lookups=lookups)
    found.ca_file.write_bytes(internet.ca_pem)
    for one in (internet, host, server):
        one.start()
    try:
        yield found
    finally:
        for one in (internet, host, server):
            one.close()


def _internet(note: Callable[[bytes], None]) -> tuple[Witnesses, NameServer]:
    known = {
        **{NAMES[which]: (address,) for which, address in ADDRESSES.items()},
        **{NAMES[which]: places for which, places in PRIVATE.items()},
        **METADATA,
    }
    made: list[tuple[Witnesses, NameServer]] = []
    failures: list[BaseException] = []

    def make() -> None:
        try:
            linux.unshare(linux.CLONE_NEWNET)
            _ip(
                "link set lo up",
                f"link add wan type veth peer name lan netns {os.getpid()}",
                f"address add {GATEWAY}/24 dev wan",
                "link set wan up",
            )
            for rule in (  # whatever the address: to us
                "-p tcp -m multiport --dports 53,80,443 -j REDIRECT",
                f"-p tcp -j REDIRECT --to-ports {_CATCH_ALL}",
                "-p udp --dport 53 -j REDIRECT",
                f"-p udp -j REDIRECT --to-ports {_CATCH_ALL}",
            ):
                run("iptables", "-t", "nat", "-A", "PREROUTING", "-i", "wan", *rule.split())
            witnesses = Witnesses(address="0.0.0.0", https_port=443, http_port=80, other_port=_CATCH_ALL)
            made.append((witnesses, NameServer(addresses(known, ZONE, ADDRESSES["evil"]), note)))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return made[0]


def _user(base: Path) -> None:
    """An ordinary user, in this mount namespace alone."""
    home = base / "home"
    home.mkdir()
    os.chown(home, UID, UID)
    _file(base, "/etc/passwd", _with("/etc/passwd", f"{USER}:x:{UID}:{UID}::{home}:/bin/bash"))
    _file(base, "/etc/group", _with("/etc/group", f"{USER}:x:{UID}:"))


def _with(path: str, line: str) -> str:
    return f"{Path(path).read_text().rstrip()}\n{line}\n"


def _file(base: Path, path: str, text: str) -> None:
    """Put a file over one of the machine's, in this mount namespace."""
    ours = base / Path(path).name
    ours.write_text(text)
    ours.chmod(0o644)
    linux.mount(str(ours), os.path.realpath(path), None, MS_BIND)


MS_BIND = 0x1000


def _ip(*commands: str) -> None:
    for command in commands:
        run("ip", *command.split())


def run(*argv: str) -> None:
    """A command of the laboratory's own. RuntimeError with its words if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
