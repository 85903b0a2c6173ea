"""The command line: finds the command, prints errors, gives exit codes.

Rule 1: only this package prints or exits.
Rule 2: a command's module is imported when that command is typed; `run` without options needs no argparse.
"""

from __future__ import annotations

import errno
import os
import sys

from cloister.errors import CloisterError, HostError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from typing import Any

SIGPIPE_CODE = 141  # as a program that SIGPIPE killed
DEBUG = "CLOISTER_DEBUG"  # tracebacks, for a report

# Name → (module in cli/, one line of help). The order is that of `cloister help`.
COMMANDS = {
    "run": ("run", "run a command in the sandbox"),
    "dev": ("dev", "start or find the project's sandbox, and a terminal in it"),
    "up": ("up", "start a sandbox that stays"),
    "exec": ("exec", "run a command in a sandbox that stays"),
    "shell": ("shell", "a shell in a sandbox that stays"),
    "ls": ("ls", "list the sandboxes, and how they do"),
    "stop": ("stop", "end a sandbox that stays; its home and its workspace remain"),
    "rebuild": ("rebuild", "make a sandbox that stays anew; its home remains"),
    "update": ("update", "get a container's newest image, and make the sandbox anew of it"),
    "rm": ("rm", "forget a sandbox that stays"),
    "init": ("init", "write a starter cloister.toml"),
    "trust": ("trust", "adopt the project's cloister.toml, after showing what changed"),
    "policy": ("policy", "show what the sandbox may reach"),
    "why": ("why", "explain whether a URL would be allowed"),
    "secret": ("secret", "list, test and explain the credentials that the gateway holds"),
    "approve": ("approve", "answer a sandbox that asks whether it may use a credential"),
    "token": ("token", "print a short-lived token of a GitHub App, for scripts"),
    "worktree": ("worktree", "list and remove the work trees that agents work in"),
    "diff": ("diff", "show what a sandbox has changed in a workspace of its own"),
    "apply": ("apply", "bring those changes back, after showing them"),
    "cp": ("cp", "copy files into or out of a sandbox"),
    "audit": ("audit", "say what an installation's dependency code does, in a throw-away sandbox"),
    "image": ("image", "build and list the container images that sandboxes start from"),
    "services": ("services", "list, start, stop and remove the project's services"),
    "logs": ("logs", "show what the sandbox did on the network"),
    "completion": ("completion", "print completions for a shell"),
    "verify": ("verify", "attack a sandbox with your configuration, and say whether it holds"),
    "doctor": ("doctor", "say what this host can do, and what to type where it cannot"),
}


def main() -> None:
    """The console script."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _replace_closed_streams()
    code = flush(dispatch(sys.argv[1:]))
    os._exit(code)  # taking the interpreter down in order costs 5 ms, and everything of ours is closed by now


def dispatch(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    try:
        if len(arguments) > 1 and arguments[0] == "run" and _is_plain(arguments[1:]):
            import gc

            from cloister.cli import run

            gc.disable()  # the session lives in what it has imported; collecting that only delays the start
            command = arguments[1:]
            return run.execute_plain(command[1:] if command[0] == "--" else command)
        if len(arguments) > 1 and arguments[0] == "exec" and _is_plain(arguments[1:]):
            from cloister.cli import exec as entering

            command = arguments[1:]
            return entering.execute_plain(command[1:] if command[0] == "--" else command)
        return _parse_and_execute(arguments)
    except CloisterError as error:
        return _tell(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return SIGPIPE_CODE
    except OSError as error:
        return _tell(_of_the_host(error))
    except Exception as error:  # the last resort: a person gets a sentence, never a traceback
        return _tell(_of_ours(error))


def flush(code: int) -> int:
    """Write what is still buffered. What cannot be written is as bad here as within the command."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or SIGPIPE_CODE
        except OSError as error:
            code = code or _tell(_of_the_host(error))
    return code


def _replace_closed_streams() -> None:
    """A caller may have closed a standard stream: its number must not go to a socket of ours."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number: this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 - all three: as long as the process
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _tell(error: CloisterError) -> int:
    sys.stderr.write(f"cloister: {error}\n")
    return error.exit_code


def _of_the_host(error: OSError) -> CloisterError:
    """A file or a resource that nobody asked about by name: say which, and what the kernel said."""
    _show_traceback()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = os.path.dirname(str(error.filename or ""))
        return HostError(
            f"the disk of {place!r} is full" if place else "a disk is full",
            details=error.strerror or "",
            resolution=f"make room; what is left: df -h {place}".rstrip(),
        )
    about = f"{error.filename!r}: " if error.filename is not None else ""
    return HostError(
        f"{about}{error.strerror or error}",
        resolution="see who owns it and whether there is room; then run: cloister doctor",
    )


def _of_ours(error: Exception) -> CloisterError:
    _show_traceback()
    return CloisterError(
        f"this is a bug in cloister: {type(error).__name__}: {error}",
        resolution=f"please report it, with what this prints: {DEBUG}=1 cloister …",
    )


def _show_traceback() -> None:
    if os.environ.get(DEBUG):
        import traceback

        traceback.print_exc()


def _is_plain(command: list[str]) -> bool:
    """Whether what follows `run` begins with the command itself."""
    return (command[0] == "--" and len(command) > 1) or not command[0].startswith("-")


def _parse_and_execute(arguments: list[str]) -> int:
    import importlib

    if arguments[:1] == ["help"] and len(arguments) > 1:
        arguments = [arguments[1], "--help"]
    if arguments[:1] and not arguments[0].startswith("-") and arguments[0] not in (*COMMANDS, "help"):
        raise UsageError(f"there is no command {arguments[0]!r}", resolution=_nearest(arguments[0]))
    whole = parser(arguments[0] if arguments else "")
    if not arguments or arguments == ["help"]:
        whole.print_help(sys.stdout if arguments else sys.stderr)
        return 0 if arguments else UsageError.exit_code
    parsed, unknown = whole.parse_known_args(arguments)
    if unknown:
        (commands,) = (one.choices for one in whole._actions if isinstance(one.choices, dict))
        raise _unknown(unknown[0], parsed.name, commands.get(parsed.name, whole))
    if parsed.name is None:
        raise UsageError("a command is missing", resolution="run: cloister help")
    if parsed.name != "run":  # which does so itself, later: it forks the gateway first
        _clean_up()
    return int(importlib.import_module(f"cloister.cli.{COMMANDS[parsed.name][0]}").execute(parsed))


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line; with the options of one command, or of all: their modules are slow to load."""
    import argparse
    import importlib

    from cloister import __version__

    class Parser(argparse.ArgumentParser):
        def __init__(self, **how: Any) -> None:  # Any: argparse's own
            super().__init__(**how, allow_abbrev=False)  # a later option must not change what a script means

        def error(self, message: str) -> None:  # type: ignore[override]  # raises where argparse exits
            raise UsageError(message, resolution=f"run: {self.prog} --help")

    whole = Parser(
        prog="cloister",
        description="Run AI coding agents with full autonomy, without giving them your secrets, network or machine.",
    )
    whole.add_argument("--version", action="version", version=f"cloister {__version__}")
    commands = whole.add_subparsers(dest="name", metavar="COMMAND", parser_class=Parser)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if only in (None, name):
            importlib.import_module(f"cloister.cli.{module}").configure(sub)
    return whole


def _clean_up() -> None:
    """Whatever the command: remove what killed sessions have left in a workspace."""
    from cloister.cli.run import tell
    from cloister.config import directories
    from cloister.session import prepare

    prepare.clean_up(directories.state_directory(os.environ), tell)


def _unknown(word: str, command: str | None, parser: argparse.ArgumentParser) -> UsageError:
    import difflib
    import shlex

    what = "option" if word.startswith("-") else "argument"
    known = [option for action in _actions(parser) for option in action.option_strings]
    near = (
        difflib.get_close_matches(word.partition("=")[0], known, n=1, cutoff=0.7) if what == "option" else []
    )
    whole = f"cloister {command}" if command else "cloister"
    if what == "argument" and "--name" in known:
        near = [f"{whole} --name {shlex.quote(word)}"]
    return UsageError(
        f"`{whole}` has no {what} {word!r}" if what == "option" else f"`{whole}` does not take {word!r}",
        resolution=f"did you mean: {near[0]}" if near else f"run: {whole} --help",
    )


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options of a command, those of its own commands included."""
    for action in parser._actions:  # argparse has no public way to list them
        yield action
        for sub in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
            yield from _actions(sub)


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"did you mean: cloister {near[0]}" if near else "run: cloister help"
