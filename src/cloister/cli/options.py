"""Options that several commands share: which sandbox, and what a start changes of the configuration."""

from __future__ import annotations

import os

from cloister.errors import CloisterError
from cloister.sandbox import catalogue
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from cloister.config.compile import Overrides
    from cloister.config.directories import Project
    from cloister.sandbox.registry import Record
    from cloister.session.up import Up


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which sandbox: its name, and a directory of its project."""

    name: str = catalogue.DEFAULT_NAME
    directory: str = "."

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Which:
        """What the options of `add_name` say."""
        return cls(name=catalogue.check_name(arguments.sandbox), directory=directory(arguments) or ".")

    def project(self) -> Project:
        """Its project: the nearest one around the directory that keeps a sandbox of that name, else the nearest one."""
        from cloister.cli.place import workspace_around
        from cloister.config import directories

        nearest = directories.project(workspace_around(self.directory, may_be_gone=True), os.environ)
        return catalogue.around(nearest.workspace, self.name, os.environ) or nearest


HERE = Which()
# The options of `add_overrides`.
_OVERRIDES = (
    "runtime", "image", "workspace_kind", "profile", "allow", "env", "unmask", "publish", "publish_detected",
    "memory", "cpus", "pids",
)  # fmt: skip


def add_name(parser: argparse.ArgumentParser) -> None:
    """Which sandbox of which project."""
    parser.add_argument(
        "-n", "--name", dest="sandbox", metavar="NAME", default=catalogue.DEFAULT_NAME,
        help=f"the sandbox, where a project has several (default: {catalogue.DEFAULT_NAME})",
    )  # fmt: skip
    parser.add_argument(
        "-C", "--workspace", metavar="DIR", help="the workspace (default: the current project)"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """What a start changes of the configuration."""
    parser.add_argument("--runtime", metavar="NAME", help="embedded, docker or podman")
    parser.add_argument("--image", metavar="IMAGE", help="the image of a container")
    parser.add_argument(
        "--workspace-kind",
        metavar="KIND",
        help="bind (itself), volume (a private copy) or clone (comes back as a branch)",
    )
    parser.add_argument("--profile", metavar="NAME", help="offline, registries, agent or full")
    parser.add_argument(
        "--allow", metavar="HOST", action="append", default=[], help="allow one more host (repeatable)"
    )
    parser.add_argument(
        "-e", "--env", metavar="NAME[=VALUE]", action="append", default=[],
        help="set a variable in the sandbox, or pass the host's (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--unmask", metavar="GLOB", action="append", default=[], help="show a masked file of the workspace"
    )
    parser.add_argument(
        "-p", "--publish", metavar="[HOST:]PORT", action="append", default=[],
        help='reach a server of the sandbox on this machine\'s loopback (repeatable; HOST may be "auto")',
    )  # fmt: skip
    parser.add_argument(
        "-P", "--publish-detected", action="store_true", help="publish the ports of the project's frameworks"
    )
    parser.add_argument("--memory", metavar="SIZE", help="memory limit, for example 4g")
    parser.add_argument("--cpus", metavar="N", type=float, help="CPU limit, for example 2")
    parser.add_argument("--pids", metavar="N", type=int, help="limit of processes and threads")


def overrides(arguments: argparse.Namespace) -> Overrides | None:
    """What the options change of the configuration; None if nothing."""
    given = [value for name in _OVERRIDES if (value := getattr(arguments, name)) not in (None, [])]
    if all(value is False for value in given):  # of a flag; a 0 is an error to be told
        return None
    from cloister.cli.run import tell
    from cloister.config.compile import Overrides  # the validator: for nothing, it is not loaded

    found = Overrides(
        runtime=arguments.runtime,
        image=arguments.image,
        workspace=arguments.workspace_kind,
        profile=arguments.profile,
        allow=tuple(arguments.allow),
        environment=variables(arguments.env),
        unmask=tuple(arguments.unmask),
        ports=tuple(arguments.publish),
        detect_ports=arguments.publish_detected,
        memory=arguments.memory,
        cpus=arguments.cpus,
        pids=arguments.pids,
    )
    for name, value in found.environment:
        if value is None and name not in os.environ:
            tell(f"-e {name}: you have no such variable, so the sandbox does not get it")
    return found


def started(arguments: argparse.Namespace, *, project: str | None = None, anew: bool = False) -> Up:
    """Start the sandbox that the options of `add_name` and `add_overrides` describe, or find it running.

    `project`: its directory; None for what -C names. `anew`: even if it runs as it should.
    """
    from cloister.cli.run import tell
    from cloister.session import up

    options = up.UpOptions(
        name=arguments.sandbox,
        directory=directory(arguments) if project is None else project,
        overrides=overrides(arguments),
        anew=anew,
    )
    return up.up(options, os.environ, tell)


def variables(texts: list[str]) -> tuple[tuple[str, str | None], ...]:
    """The pairs of `-e NAME=VALUE`; without a value: the caller's."""
    pairs = (text.partition("=") for text in texts)
    return tuple((name, value if separator else None) for name, separator, value in pairs)


def directory(arguments: argparse.Namespace) -> str | None:
    """What -C names."""
    from cloister.cli import place

    return None if arguments.workspace is None else place.named(arguments.workspace)


def command_from_here(verb: str, workspace: str, name: str) -> str:
    """What to type in the current directory for a command about a sandbox of that workspace."""
    from shlex import quote  # seldom

    option = "" if name == catalogue.DEFAULT_NAME else f" --name {name}"
    is_here = Which(name=name).project().workspace == workspace
    return f"cloister {verb}{option}{'' if is_here else f' -C {quote(workspace)}'}"


def live(which: Which) -> Record:
    """The live sandbox of that name. CloisterError if it does not run."""
    place = which.project()
    record = catalogue.live(place, which.name)
    if record is None:
        raise not_running(place, which.name)
    return record


def not_running(place: Project, name: str) -> CloisterError:
    """What to say of a sandbox that does not run."""
    option = "" if name == catalogue.DEFAULT_NAME else f" --name {name}"
    kept = [one.name for one in catalogue.all_of(place)]
    if name in kept:
        return CloisterError(
            f"the sandbox {name!r} does not run", resolution=f"start it: cloister up{option}"
        )
    known = f"this project has: {', '.join(kept)}" if kept else "this project has none"
    return CloisterError(
        f"there is no sandbox {name!r} for {place.workspace!r}",
        details=known,
        resolution=f"make it: cloister up{option}",
    )
