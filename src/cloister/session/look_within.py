"""What a sandbox does whose processes are not seen from here: asked of a process in it, by way of its engine.

Rule 1: the answer is the sandbox's own word: shown, and nothing else depends on it.
"""

from __future__ import annotations

from cloister.network import listeners
from cloister.runtimes import oci_exec_argv
from cloister.sandbox import registry
from cloister.system import proc
from cloister.values import dataclass

_ASK_S = 5.0
_LIMIT_BYTES = 1 << 20
_LIMIT = 1 << 50
# The shell's own builtins, for an image may have no others; its own process and the engine's --init do not count.
_SCRIPT = """\
set -- /proc/[0-9]*
echo "processes $(($# - 1))"
for file in /sys/fs/cgroup/memory.current /sys/fs/cgroup/memory/memory.usage_in_bytes; do
  [ -r "$file" ] && read -r bytes <"$file" && echo "memory $bytes"
done
for file in /proc/net/tcp /proc/net/tcp6; do
  [ -r "$file" ] && while read -r line; do echo "tcp $line"; done <"$file"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Within:
    """What it said; None, and no table, where it said nothing that can be understood."""

    memory_bytes: int | None = None
    processes: int | None = None
    sockets: str = ""

    def listens(self, port: int) -> bool | None:
        """Whether a server listens on a port of the sandbox's."""
        return bool(listeners.listening_inodes(self.sockets, port)) if self.sockets else None


def look(record: registry.Record) -> Within:
    """Ask it. One that does not answer says nothing."""
    container = record.container
    if container is None or not container.has_sh:
        return Within()
    names = oci_exec_argv.Names(sandbox=record.sandbox_id, project="")
    argv = [container.program, "exec", names.agent, "/bin/sh", "-c", _SCRIPT]
    try:
        done = proc.run(argv, environment=dict(container.environment), timeout_s=_ASK_S)
    except OSError:  # TimeoutError too
        return Within()
    return parse(done.output[:_LIMIT_BYTES].decode(errors="replace"))


def parse(untrusted_text: str) -> Within:
    """Understand what the script prints."""
    words = [line.split(maxsplit=1) for line in untrusted_text.splitlines()]
    said = {one[0]: one[1] for one in words if len(one) == 2}
    rows = [one[1] for one in words if len(one) == 2 and one[0] == "tcp"]
    return Within(
        memory_bytes=_count(said.get("memory", "")),
        processes=_count(said.get("processes", "")),
        sockets="\n".join(["", *rows]) if rows else "",
    )


def _count(text: str) -> int | None:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_LIMIT)):
        return None
    return int(text)
