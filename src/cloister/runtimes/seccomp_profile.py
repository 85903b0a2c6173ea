"""The sandbox's system call filter in the JSON of container engines (OCI runtime specification, "seccomp").

Rule 1: the same rules as those of the embedded runtime (seccomp_rules.py). Only the engine's own architecture is
        named: a call of another one (i386, x32) ends the thread.
Rule 2: what must look absent is said to be: Docker before 23 does not know `defaultErrnoRet` and would say EPERM,
        which glibc does not take for "no clone3 here".
"""

from __future__ import annotations

import json

from cloister.runtimes import seccomp_table as table
from cloister.runtimes.seccomp_rules import ENOSYS, Condition, Rule, rules


def profile() -> str:
    """The profile, as `--security-opt seccomp=FILE` takes it."""
    plain = [rule for rule in rules() if not rule.conditions]
    syscalls: list[dict[str, object]] = []
    for errno in sorted({rule.errno for rule in plain}, key=lambda one: one or 0):
        syscalls.append(_entry([rule.name for rule in plain if rule.errno == errno], errno))
    syscalls.append(_entry(list(table.ABSENT), ENOSYS))
    syscalls += [_conditional(rule) for rule in rules() if rule.conditions]
    document = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": ENOSYS, "syscalls": syscalls}
    return json.dumps(document, indent=1) + "\n"


def _entry(names: list[str], errno: int | None) -> dict[str, object]:
    if errno is None:
        return {"names": names, "action": "SCMP_ACT_ALLOW"}
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}


def _conditional(rule: Rule) -> dict[str, object]:
    return _entry([rule.name], rule.errno) | {"args": [_argument(one) for one in rule.conditions]}


def _argument(condition: Condition) -> dict[str, object]:
    match condition.how:
        case "equal":
            return {"index": condition.argument, "value": condition.value, "op": "SCMP_CMP_EQ"}
        case "above":
            return {"index": condition.argument, "value": condition.value, "op": "SCMP_CMP_GT"}
        case "bits":
            return {
                "index": condition.argument,
                "value": condition.mask,
                "valueTwo": condition.value,
                "op": "SCMP_CMP_MASKED_EQ",
            }
        case how:
            raise ValueError(f"no comparison {how!r}")
