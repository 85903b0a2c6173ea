"""Render what `cloister exec` becomes in a container engine's sandbox; see oci_argv.py for all else.

Rule 1: no I/O; on a path that is measured, so it imports next to nothing.
Rule 2: nothing confidential: the environment travels through a descriptor (`--env-file=/dev/fd/N`).
"""

from __future__ import annotations

from cloister.runtimes import start_script
from cloister.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Whose containers they are."""

    sandbox: str
    project: str

    @property
    def holder(self) -> str:
        return f"cloister-{self.sandbox}-holder"

    @property
    def agent(self) -> str:
        return f"cloister-{self.sandbox}-agent"

    @property
    def gateway(self) -> str:
        return f"cloister-{self.sandbox}-gateway"

    @property
    def volume(self) -> str:
        """Where the holder passes its sockets on to a gateway in a container."""
        return f"cloister-{self.sandbox}-sockets"

    @property
    def files(self) -> str:
        """The volume of what is made for this sandbox, on an engine that has none of the host's files."""
        return f"cloister-{self.sandbox}-files"

    @property
    def filler(self) -> str:
        """The container, never run, through which volumes are filled."""
        return f"cloister-{self.sandbox}-filler"


def execute(
    names: Names,
    command: tuple[str, ...],
    *,
    directory: str,
    terminal: bool,
    environment: int,
    passed: tuple[str, ...],
    has_sh: bool,
    seen: bool = True,
    pids: int | None = None,
    memory_bytes: int | None = None,
) -> list[str]:
    """Run one more command in the agent's container, confined as its first one is (the engine does that).

    `seen`: its process will be seen from this host; else it says within the sandbox which it is.
    """
    rendered = ["exec", "--interactive", *(["--tty"] if terminal else []), f"--workdir={directory}"]
    rendered += [f"--env-file=/dev/fd/{environment}", *(f"--env={name}" for name in passed)]
    before = "" if seen else start_script.MARK_SCRIPT
    started = (
        start_script.start_argv(command, pids=pids, memory_bytes=memory_bytes, before=before)
        if has_sh
        else list(command)
    )
    return [*rendered, names.agent, *started]


def send_signal(names: Names, mark: str, number: int) -> list[str]:
    """Send a signal to a command that was not `seen`."""
    return ["exec", names.agent, *start_script.signal_argv(mark, number)]


def environment_file(environment: tuple[tuple[str, str], ...]) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """The lines of `--env-file`, and the variables that it cannot hold: those with a line break in them."""
    lines, others = [], []
    for name, value in environment:
        if "\n" in value or "\r" in value:
            others.append((name, value))
        elif not name.startswith("#"):
            lines.append(f"{name}={value}\n")
    return "".join(lines).encode(errors="surrogateescape"), tuple(others)
