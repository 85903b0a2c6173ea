"""The sandbox's system call filter as rules: seccomp.py compiles them, seccomp_profile.py renders them for engines.

Rule 1: an allow-list (seccomp_table.py). What a rule does not name is ENOSYS.
Rule 2: a grant compares all 64 bits of an argument where it can, so that junk in the upper half is refused; a
refusal compares only those bits that the kernel looks at (CVE-2019-10063: TIOCSTI with bit 32 set passed).
Rule 3: the conditions of one rule are on different arguments; rules of one call never overlap with different actions.
"""

from __future__ import annotations

from cloister.runtimes import seccomp_table as table
from cloister.values import dataclass

CLONE_NEW_FLAGS = (
    0x00000080,  # CLONE_NEWTIME
    0x00020000,  # CLONE_NEWNS
    0x02000000,  # CLONE_NEWCGROUP
    0x04000000,  # CLONE_NEWUTS
    0x08000000,  # CLONE_NEWIPC
    0x10000000,  # CLONE_NEWUSER
    0x20000000,  # CLONE_NEWPID
    0x40000000,  # CLONE_NEWNET
)
# clone's lowest byte is the exit signal, so CLONE_NEWTIME cannot be asked for there.
CLONE_FLAGS = CLONE_NEW_FLAGS[1:]
O_CREAT = 0o100
O_TMPFILE = 0o20000000  # __O_TMPFILE alone; O_TMPFILE has O_DIRECTORY as well
SUID, SGID = 0o4000, 0o2000
S_IFMT, S_IFCHR, S_IFBLK = 0o170000, 0o020000, 0o060000
HARMLESS_NODES = (0, 0o100000, 0o010000, 0o140000)  # (regular), regular, FIFO, socket
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM = 1, 2
INET_PROTOCOLS = (0, 1, 6, 17, 58)  # default, ICMP (echo only), TCP, UDP, ICMPv6 (echo only)
DCCP = 33
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
PERSONALITIES = (0, 8, 0xFFFFFFFF)  # PER_LINUX, PER_LINUX32, "tell me"
EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT = 1, 38, 93, 97


@dataclass(frozen=True, slots=True)
class Condition:
    """On one argument: "equal" and "above" compare `value`, "bits" compares what `mask` leaves."""

    argument: int
    how: str
    value: int
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """A call with these arguments is allowed, or fails with `errno`."""

    name: str
    errno: int | None
    conditions: tuple[Condition, ...] = ()


def rules() -> tuple[Rule, ...]:
    """Every rule."""
    made = _Rules()
    made.add_all()
    return tuple(made.rules)


class _Rules:
    """Collects the rules."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def add_all(self) -> None:
        """Add every rule. The conditions on one call never overlap with different actions."""
        for name in table.ALLOWED:
            self._allow(name)
        for name in table.FORBIDDEN:
            self._refuse(name)
        # table.ABSENT needs no rule: it names what must stay out of the others.
        self._namespaces()
        self._modes()
        self._nodes()
        self._sockets()
        self._ioctls()
        for persona in PERSONALITIES:
            self._allow("personality", self._equal(0, persona))

    def _namespaces(self) -> None:
        for name, flags in (("clone", CLONE_FLAGS), ("unshare", CLONE_NEW_FLAGS)):
            self._allow(name, self._bits(0, sum(flags), 0))
            for flag in flags:
                self._refuse(name, self._bits(0, flag, flag))

    def _modes(self) -> None:
        """Refuse SUID and SGID: the file belongs to the host's user, and others could run it as that user."""
        for name, argument in (("chmod", 1), ("fchmod", 1), ("fchmodat", 2)):
            self._allow(name, self._bits(argument, SUID | SGID, 0))
            for bit in (SUID, SGID):
                self._refuse(name, self._bits(argument, bit, bit))
        self._allow("creat", self._bits(1, SUID | SGID, 0))
        for bit in (SUID, SGID):
            self._refuse("creat", self._bits(1, bit, bit))
        for name, flags in (("open", 1), ("openat", 2)):
            mode = flags + 1  # junk unless the call creates
            self._allow(name, self._bits(flags, O_CREAT | O_TMPFILE, 0))
            for creating in (O_CREAT, O_TMPFILE):
                self._allow(name, self._bits(flags, creating, creating), self._bits(mode, SUID | SGID, 0))
                for bit in (SUID, SGID):
                    self._refuse(name, self._bits(flags, creating, creating), self._bits(mode, bit, bit))

    def _nodes(self) -> None:
        for name, mode in (("mknod", 1), ("mknodat", 2)):
            for kind in HARMLESS_NODES:
                self._allow(name, self._bits(mode, S_IFMT | SUID | SGID, kind))
            for kind in (S_IFCHR, S_IFBLK):
                self._refuse(name, self._bits(mode, S_IFMT, kind))
            for bit in (SUID, SGID):
                for kind in HARMLESS_NODES:
                    self._refuse(name, self._bits(mode, S_IFMT | bit, kind | bit))

    def _sockets(self) -> None:
        """Grant Unix, TCP, UDP and the netlink that getaddrinfo reads; name the reason for the rest."""
        self._allow("socket", self._equal(0, AF_UNIX))
        self._allow("socket", self._equal(0, AF_NETLINK), self._equal(2, 0))  # NETLINK_ROUTE
        self._refuse("socket", self._equal(0, AF_NETLINK), self._above(2, 0), errno=EPROTONOSUPPORT)
        for family in (AF_INET, AF_INET6):
            for kind in range(16):
                if kind not in {SOCK_STREAM, SOCK_DGRAM}:
                    self._refuse("socket", self._equal(0, family), self._bits(1, 0xF, kind))
                    continue
                exact = (self._equal(0, family), self._bits(1, 0xF, kind))
                for protocol in INET_PROTOCOLS:
                    self._allow("socket", *exact, self._equal(2, protocol))
                # Go and others take this errno for "no MPTCP here" and fall back, but not EPERM.
                self._refuse("socket", *exact, self._equal(2, DCCP), errno=EPROTONOSUPPORT)
                self._refuse("socket", *exact, self._above(2, max(INET_PROTOCOLS)), errno=EPROTONOSUPPORT)
        for family in range(AF_NETLINK):
            if family not in {AF_UNIX, AF_INET, AF_INET6}:
                self._refuse("socket", self._equal(0, family), errno=EAFNOSUPPORT)
        self._refuse("socket", self._above(0, AF_NETLINK), errno=EAFNOSUPPORT)

    def _ioctls(self) -> None:
        """Grant every request but two that type into the terminal.

        libseccomp has no "all but these": grants and refusals of one call must not overlap, and an argument
        may be compared only once in a rule. So the grants are the 28 ways to differ from 0x541? in its first
        differing bit, and the 14 other values of the last digit.
        """
        word = 0xFFFFFFFF
        for bit in range(4, 32):
            mask = word & ~((1 << bit) - 1)
            self._allow("ioctl", self._bits(1, mask, (TIOCSTI ^ (1 << bit)) & mask))
        for digit in range(16):
            request = (TIOCSTI & ~0xF) | digit
            act = self._refuse if request in {TIOCSTI, TIOCLINUX} else self._allow
            act("ioctl", self._bits(1, word, request))

    def _allow(self, name: str, *conditions: Condition) -> None:
        self.rules.append(Rule(name, None, conditions))

    def _refuse(self, name: str, *conditions: Condition, errno: int = EPERM) -> None:
        self.rules.append(Rule(name, errno, conditions))

    @staticmethod
    def _equal(argument: int, value: int) -> Condition:
        return Condition(argument, "equal", value)

    @staticmethod
    def _above(argument: int, value: int) -> Condition:
        return Condition(argument, "above", value)

    @staticmethod
    def _bits(argument: int, mask: int, value: int) -> Condition:
        return Condition(argument, "bits", value, mask)
