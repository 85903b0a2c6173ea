"""The sandbox's system call filter, compiled by libseccomp and kept as a file.

Rule 1: the rules are those of seccomp_rules.py. What they do not name is ENOSYS; a foreign architecture (i386, x32)
likewise.
Rule 2: compiling takes tens of milliseconds and loads ctypes, so it happens once; a start opens a file whose
name holds its checksum.
"""

from __future__ import annotations

import binascii
import os

import cloister
from cloister.errors import HostError
from cloister.runtimes import seccomp_table as table
from cloister.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # pyseccomp has no types

    from cloister.runtimes import seccomp_rules as rules

FORMAT = 1  # raise when seccomp_rules.py changes
BINARY_TREE = 2  # SCMP_FLTATR_CTL_OPTIMIZE: some ten comparisons a call instead of some hundred
INSTRUCTION_BYTES = 8  # struct sock_filter


def filter_file(directory: str) -> str:
    """Name the compiled filter in `directory`; compile it if it is missing or damaged."""
    prefix = f"seccomp-{_key()}-"
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        names = []
    for name in names:
        if name.startswith(prefix) and name.endswith(".bpf"):
            path = f"{directory}/{name}"
            if _is_intact(path, name[len(prefix) : -len(".bpf")]):
                return path
            os.unlink(path)
    return compile_file(directory)


def compile_file(directory: str) -> str:
    """Compile the filter into `directory` and name the file. Removes those of other versions."""
    code = program()
    files.make_private_directory(directory)
    path = f"{directory}/seccomp-{_key()}-{binascii.crc32(code):08x}.bpf"
    files.write_atomic(path, code)
    for name in os.listdir(directory):
        if name.startswith("seccomp-") and name.endswith(".bpf") and f"{directory}/{name}" != path:
            os.unlink(f"{directory}/{name}")
    return path


def program() -> bytes:
    """Compile the filter for this machine: an array of `struct sock_filter`."""
    try:
        import pyseccomp  # deferred: loads libseccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise HostError(
            "The system call filter cannot be compiled: libseccomp is missing.",
            details=str(error),
            resolution="apt-get install libseccomp2",
        ) from error
    from cloister.runtimes import seccomp_rules as rules  # deferred: a start finds the filter compiled

    seccomp = pyseccomp.SyscallFilter(pyseccomp.ERRNO(rules.ENOSYS))
    seccomp.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.ERRNO(rules.ENOSYS))
    seccomp.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, BINARY_TREE)
    for rule in rules.rules():
        _add(pyseccomp, seccomp, rule)
    descriptor = os.memfd_create("seccomp")
    with os.fdopen(descriptor, "w+b") as file:
        seccomp.export_bpf(file)
        file.seek(0)
        return file.read()


def _add(library: Any, compiled: Any, rule: rules.Rule) -> None:
    """Add one rule to a filter. `library` is pyseccomp: importing this module must not load it."""
    try:
        number = library.resolve_syscall(library.Arch.NATIVE, rule.name)
    except ValueError:
        return  # newer than this libseccomp, so unknown to the filter: ENOSYS
    if number < 0:
        return  # of another architecture
    action = library.ALLOW if rule.errno is None else library.ERRNO(rule.errno)
    compiled.add_rule(action, number, *(_argument(library, one) for one in rule.conditions))


def _argument(library: Any, condition: rules.Condition) -> Any:
    match condition.how:
        case "equal":
            return library.Arg(condition.argument, library.EQ, condition.value)
        case "above":
            return library.Arg(condition.argument, library.GT, condition.value)
        case "bits":
            return library.Arg(condition.argument, library.MASKED_EQ, condition.mask, condition.value)
        case how:
            raise ValueError(f"no comparison {how!r}")


def _key() -> str:
    names = repr((FORMAT, cloister.__version__, table.ALLOWED, table.FORBIDDEN, table.ABSENT))
    return f"{os.uname().machine}-{binascii.crc32(names.encode()):08x}"


def _is_intact(path: str, checksum: str) -> bool:
    try:
        with open(path, "rb") as file:
            code = file.read()
    except OSError:
        return False
    whole = bool(code) and len(code) % INSTRUCTION_BYTES == 0
    return whole and f"{binascii.crc32(code):08x}" == checksum
