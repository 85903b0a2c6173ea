"""What must be true of a sandbox before its command runs, judged by what the kernel says of what becomes the command.

Rule 1: cheap enough for every start: two files of /proc, read from outside, where nothing in the sandbox can lie.
Rule 2: what cannot be read is not true.

The network's half is tried by the plumber (network/plumb.py, `prove`): a port that nothing captures is refused at once,
and the gateway's sockets take a connection, whatever the address.
"""

from __future__ import annotations

_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_HEADER_LINES = 2  # of /proc/<pid>/net/dev


def breaches(status: str, interfaces: str) -> tuple[str, ...]:
    """What is wrong, in words; nothing if all holds.

    `status` and `interfaces` are the texts of /proc/<pid>/status and /proc/<pid>/net/dev, read on the host.
    """
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    found = [f"it has capabilities ({name})" for name in _CAPABILITIES if fields.get(name, "?").strip("0")]
    if fields.get("NoNewPrivs") != "1":
        found.append("it could gain privileges (no_new_privs is not set)")
    if fields.get("Seccomp") != "2":
        found.append("it has no system call filter")
    if "0" in fields.get("Uid", "0").split():
        found.append("it is the host's root")
    names = {line.partition(":")[0].strip() for line in interfaces.splitlines()[_HEADER_LINES:]}
    if names != {"lo"}:
        others = ", ".join(sorted(names - {"lo"})) or "none at all"
        found.append(f"its network has other interfaces than loopback ({others})")
    return tuple(found)
