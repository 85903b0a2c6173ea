"""Render what starts a command within a sandbox, whichever runtime has made it: a shell that sets limits and looks
for the program.

Rule 1: no I/O; on the path of `exec`, so it imports nothing.
"""

from __future__ import annotations

# $1: processes or "-"; $2: KiB of private writable memory or "-"; then the command.
# RLIMIT_NPROC is set here, inside the sandbox's own user namespace, because the kernel counts it per user
# namespace (since 5.14) and so counts nobody else's processes. dash and busybox spell it -p, bash (where -p
# is the size of pipes, which cannot be set) -u. No core dump: it would land in the workspace with all memory.
START_SCRIPT = """\
ulimit -c 0
case $1 in -) ;; *) ulimit -p "$1" 2>/dev/null || ulimit -u "$1" || exit 125 ;; esac
case $2 in -) ;; *) ulimit -d "$2" || exit 125 ;; esac
shift 2
case $1 in
*/*) [ -e "$1" ] || { printf "cloister: '%s' does not exist in the sandbox\\n" "$1" >&2; exit 127; }
  [ -x "$1" ] && [ ! -d "$1" ] || { printf "cloister: '%s' is not an executable file\\n" "$1" >&2; exit 126; } ;;
*) command -v -- "$1" >/dev/null 2>&1 || {
  printf "cloister: '%s' was not found in the sandbox's PATH\\n" "$1" >&2; exit 127; } ;;
esac
exec "$@"
"""

# Of a command whose process is not seen from outside: it leaves its number where only the sandbox's user writes, under
# its mark ($CLOISTER_ENTERED, session/entered.py), and SIGNAL_SCRIPT sends $2 to the process of the mark $1.
MARK_SCRIPT = """\
for place in /run/user/*; do echo "$CLOISTER_ENTERED" >"$place/.entered-$$"; done 2>/dev/null
"""
SIGNAL_SCRIPT = """\
code=1
for file in /run/user/*/.entered-*; do
  read -r mark <"$file" && [ "$mark" = "$1" ] && kill "-$2" "${file##*-}" && code=0
done 2>/dev/null
exit $code
"""


def start_argv(
    command: tuple[str, ...], *, pids: int | None, memory_bytes: int | None, before: str = ""
) -> list[str]:
    """The argv; the limits are those that rlimits must hold. `before` is script text that goes first."""
    processes = "-" if pids is None else str(pids)
    memory_kib = "-" if memory_bytes is None else str(memory_bytes // 1024)
    return ["/bin/sh", "-c", before + START_SCRIPT, "cloister", processes, memory_kib, *command]


def signal_argv(mark: str, number: int) -> list[str]:
    """What sends a signal to the command of that mark, from within; its exit code is 1 if there is none."""
    return ["/bin/sh", "-c", SIGNAL_SCRIPT, "cloister", mark, str(number)]


def is_start(arguments: tuple[str, ...]) -> bool:
    """Whether an argv, its words perhaps cut, is what `start_argv` renders: of what becomes the command."""
    return arguments[:2] == ("/bin/sh", "-c") and arguments[3:4] == ("cloister",)
