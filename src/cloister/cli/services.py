"""`cloister services list|start|stop|rm`: the containers beside the sandboxes of a project."""

from __future__ import annotations

import argparse
import json
import os
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloister.cli.place import workspace_around
from cloister.cli.run import tell
from cloister.config import directories
from cloister.config.compile import Overrides, compile_project
from cloister.config.directories import Project
from cloister.config.load import nearest
from cloister.config.wording import visible
from cloister.errors import UsageError
from cloister.images.engine import Engine
from cloister.policy.service import Service, parse_document
from cloister.services import call, render, repository, stop
from cloister.services.inspected import Container
from cloister.services.start import Start, hold
from cloister.services.users import Users
from cloister.values import dataclass

_WIDE = 200  # not a terminal: one service a line
_NONE = """\
This project has no services. In the project's cloister.toml or in your own configuration:
  [services.postgres]
  image = "postgres:16"
  port = 5432
  env = { POSTGRES_PASSWORD = "postgres" }
  volume = "/var/lib/postgresql/data\""""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A service as a person wants to know it."""

    name: str
    state: str
    image: str
    ports: str
    used_by: tuple[str, ...]
    held: bool


def configure(parser: argparse.ArgumentParser) -> None:
    """Add its commands."""
    parser.description = "The services of this project; the worktrees of a repository share them."
    commands = parser.add_subparsers(dest="services_command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="show each, whether it runs, and who uses it")
    listing.add_argument("--json", action="store_true", help="for a program")
    start = commands.add_parser("start", help="start them, and let them run until they are stopped")
    end = commands.add_parser("stop", help="stop them, kept or not; data in volumes stays")
    remove = commands.add_parser("rm", help="stop them, and remove what was made for them")
    remove.add_argument("--volumes", action="store_true", help="their data too")
    for command in (start, end, remove):
        command.add_argument("names", metavar="NAME", nargs="*", help="only these (default: all)")
    for command in (listing, start, end, remove):
        command.add_argument(
            "-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)"
        )


def execute(arguments: argparse.Namespace) -> int:
    """Do one of them."""
    project = directories.project(workspace_around(arguments.workspace), os.environ)
    plan = compile_project(project.workspace, os.environ, Overrides())
    declared = parse_document(plan["services"])
    users = Users.of(project.shared, repository.key(project.workspace))
    if arguments.services_command == "list":
        return _list(declared, users, project, as_json=arguments.json)
    names = _named(arguments.names, declared, users, project)
    if arguments.services_command == "start":
        chosen = [service for service in declared if not names or service.name in names]
        _start(chosen, users, project)
        return 0
    engine = _engine(users, project)
    count = stop.by_hand(engine, users, names, tell)
    if arguments.services_command == "rm" and arguments.volumes:
        for volume in stop.remove_volumes(engine, users, names or tuple(one.name for one in declared)):
            print(f"removed the volume {volume}")
    elif not count:
        print("no service of this project runs")
    return 0


def _engine(users: Users, project: Project) -> Engine:
    return call.find(os.environ, (project.workspace, project.home), users.engine)


def _start(chosen: list[Service], users: Users, project: Project) -> None:
    if not chosen:
        print(_NONE)
        return
    start = Start(users=users, environ=os.environ, untrusted=(project.workspace, project.home), tell=tell)
    hold(chosen, start)
    for service in chosen:
        print(f"{service.name} is ready; in a sandbox: {service.name}:{service.ports[0]}")


def _named(
    names: list[str], declared: tuple[Service, ...], users: Users, project: Project
) -> tuple[str, ...]:
    """The names that were typed. UsageError for one that is neither declared nor there."""
    known = {service.name for service in declared}
    if set(names) - known:
        engine = _engine(users, project)
        known |= {
            one.labels.get(render.LABEL_SERVICE, "") for one in call.of_repository(engine, users.repository)
        }
    for name in names:
        if name not in known:
            there_are = f"there are: {', '.join(sorted(known))}" if known else "this project has none"
            raise UsageError(
                f"there is no service {visible(name)!r}", resolution=nearest(name, known) or there_are
            )
    return tuple(names)


def _list(declared: tuple[Service, ...], users: Users, project: Project, *, as_json: bool) -> int:
    seen = _seen(declared, users, project) if declared or os.path.isdir(users.directory) else []
    if as_json:
        fields = ("name", "state", "image", "ports", "used_by", "held")
        print(json.dumps([{field: getattr(one, field) for field in fields} for one in seen], indent=2))
    elif not seen:
        sys.stdout.write(f"{_NONE}\n")
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDE
        console.print(_table(seen))
    return 0


def _seen(declared: tuple[Service, ...], users: Users, project: Project) -> list[_Seen]:
    engine = _engine(users, project)
    with users.locked():
        live = users.live()
    found = {
        one.labels.get(render.LABEL_SERVICE, one.name): one
        for one in call.of_repository(engine, users.repository)
    }
    for service in declared:
        if not service.is_ours and (one := call.container(engine, service.container)) is not None:
            found[service.name] = one
    rows = [_row(service.name, service, found.get(service.name), users, live) for service in declared]
    names = {service.name for service in declared}
    return rows + [_row(name, None, one, users, live) for name, one in found.items() if name not in names]


def _row(
    name: str, service: Service | None, found: Container | None, users: Users, live: tuple[str, ...]
) -> _Seen:
    state = "stopped" if found is None else found.status
    if found is not None and found.health:
        state += f" ({found.health})"
    is_old = (
        service is not None
        and service.is_ours
        and found is not None
        and found.labels.get(render.LABEL_CONFIGURATION) != render.configuration(service)
    )
    if service is None:
        state += ", not declared any more"
    elif is_old:
        state += ", as declared before"
    return _Seen(
        name=name,
        state=state,
        image=(service.image or service.container) if service else "",
        ports=", ".join(map(str, service.ports)) if service else "",
        used_by=live if found is not None and found.runs else (),
        held=users.held or (service is not None and service.keep),
    )


def _table(seen: list[_Seen]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("service", "state", "image", "ports", "used by"):
        table.add_column(heading, overflow="fold")
    for one in seen:
        used = ", ".join(sandbox.rpartition("-")[2] for sandbox in one.used_by)
        kept = " (kept)" if one.held else ""
        table.add_row(
            Text(visible(one.name)),
            Text(visible(one.state)),
            Text(visible(one.image)),
            one.ports,
            f"{used}{kept}",
        )
    return table
