"""`cloister run`: one command in a fresh sandbox, from the plan to the exit code.

The order is chosen for speed as much as for safety: the gateway is forked first of all, so that it loads on
another core while this process imports what it needs itself, checks the configuration, looks at the
workspace and makes the namespaces. That is why this module imports nearly nothing; `prepare.py` and
`live.py` are the two halves of the rest.
"""

from __future__ import annotations

from cloister.errors import UsageError
from cloister.session import early_fork
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloister.config.compile import Overrides
    from cloister.config.directories import Project
    from cloister.sandbox.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What stands in for a project's own things in a sandbox that is watched (`cloister audit`) or attacked (`verify`).

    `project` is throw-away. A workspace of its own that is a copy is shown at the real one's path, unprotected. `adapt`
    changes the compiled plan. `observer` is a Unix socket that gets the listener of runtimes/exec_watch.py.
    """

    project: Project
    adapt: Callable[[Plan], Plan]
    observer: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the command line says. `overrides` is None if it changes nothing of the configuration."""

    command: tuple[str, ...]
    directory: str | None = None
    overrides: Overrides | None = None
    name: str = ""  # of a kept sandbox
    on_started: Callable[[], None] | None = None  # called once its first process runs
    stage: Stage | None = None


def run(options: RunOptions, environ: Mapping[str, str], tell: Callable[[str], None]) -> int:
    """Run a command in a sandbox; returns its exit code as a shell would (128 + n for a signal).

    `tell` gets one-line notices for the user. CloisterError for what keeps the sandbox from starting.
    """
    if not options.command:
        raise UsageError("a command is missing", resolution="for example: cloister run -- bash")
    forked = early_fork.fork_gateway()
    from cloister.session.gateway_process import (  # deferred, all here: it loads while the gateway does
        Gateway,
        stop,
    )

    gateway = Gateway(*forked)
    try:
        from cloister.session import prepare

        return prepare.run(options, environ, tell, gateway)
    finally:
        stop(gateway)
