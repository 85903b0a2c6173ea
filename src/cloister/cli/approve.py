"""`cloister approve`: answer a sandbox that wants to use a credential with `confirm = true`.

Rule 1: an answer goes to the sandbox that is meant: those of this workspace; to another only if no second one may be.
Rule 2: without a terminal nothing is allowed but what is named, or all of it with --all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from cloister.cli import live
from cloister.cli.live import Live
from cloister.cli.place import workspace_around
from cloister.config import directories
from cloister.config.wording import visible
from cloister.errors import CloisterError, UsageError

ANSWERED, NOTHING = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A question of a sandbox."""

    live: Live
    name: str
    host: str


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Answer sandboxes that want to use a credential which asks first (confirm = true). "
        "Without a name: list what waits, and ask."
    )
    parser.add_argument(
        "credential", metavar="NAME", nargs="?", default="", help="this credential, asked for or not"
    )
    parser.add_argument("--deny", action="store_true", help="refuse instead, also after it was allowed")
    parser.add_argument("--all", action="store_true", help="everything that waits")
    parser.add_argument("-C", "--workspace", metavar="DIR", default="", help="sandboxes of this project only")


def execute(arguments: argparse.Namespace) -> int:
    if arguments.credential and arguments.all:
        raise UsageError("both a NAME and --all are given", resolution="leave one of them out")
    if arguments.deny and not arguments.credential and not arguments.all:
        raise UsageError(
            "--deny: of which credential?", resolution="name it, or add --all for everything that waits"
        )
    sandboxes = _sandboxes(arguments.workspace)
    if arguments.credential:
        return _decide(sandboxes, arguments.credential, deny=arguments.deny, anywhere=not arguments.workspace)
    waiting = _waiting(sandboxes)
    if not waiting:
        sys.stdout.write("Nothing waits for an answer.\n")
        return NOTHING
    for one in waiting:
        text = f'{one.live.sandbox_id}: credential "{visible(one.name)}" for "{visible(one.host)}"'
        if arguments.all:
            sys.stdout.write(text + "\n")
            _answer(one.live, one.name, deny=arguments.deny)
        elif sys.stdin.isatty():
            sys.stdout.write(f"{text}\n  allow it until this sandbox ends? [y/N] ")
            sys.stdout.flush()
            said = sys.stdin.readline().strip().lower()
            _answer(one.live, one.name, deny=said not in ("y", "yes"))
        else:
            sys.stdout.write(f"{text}\n  → cloister approve {visible(one.name)}\n")
    return ANSWERED


def _sandboxes(workspace: str) -> list[Live]:
    """Of the workspace that was named; otherwise all, those of this workspace first."""
    state = directories.state_directory(os.environ)
    here = workspace_around(workspace or ".", may_be_gone=True)
    own = live.of_project(directories.project(here, os.environ))
    if workspace:
        return own
    known = {one.path for one in own}
    return own + [one for one in live.of_user(state) if one.path not in known]


def _waiting(sandboxes: Sequence[Live]) -> list[_Waiting]:
    return [
        _Waiting(live=sandbox, name=str(entry.get("name")), host=str(entry.get("host")))
        for sandbox in sandboxes
        for entry in sandbox.entries("pending")
    ]


def _decide(sandboxes: Sequence[Live], name: str, *, deny: bool, anywhere: bool) -> int:
    """Answer for a credential by its name: where it waits, else where it is known."""
    meant = [one.live for one in _waiting(sandboxes) if one.name == name]
    if not meant:
        meant = [
            one for one in sandboxes if any(entry.get("name") == name for entry in one.entries("credentials"))
        ]
    own = {one.path for one in live.of_project(directories.project(workspace_around("."), os.environ))}
    here = [one for one in meant if one.path in own]
    meant = here if anywhere and here else meant
    if not meant:
        raise CloisterError(
            f"no live sandbox has a credential {visible(name)!r}",
            resolution="to see what there is: cloister secret list",
        )
    if anywhere and not here and len(meant) > 1:
        ids = ", ".join(one.sandbox_id for one in meant)
        raise UsageError(
            f"several sandboxes have a credential {visible(name)!r}: {ids}",
            resolution="say whose is meant: cloister approve -C DIR",
        )
    for sandbox in meant:
        _answer(sandbox, name, deny=deny)
    return ANSWERED


def _answer(sandbox: Live, name: str, *, deny: bool) -> None:
    answer = sandbox.ask(op="refuse" if deny else "approve", name=name)
    if "error" in answer:
        raise CloisterError(visible(str(answer["error"])), details=f"sandbox: {sandbox.sandbox_id}")
    what = "refused" if deny else "allowed until it ends"
    sys.stdout.write(f'credential "{visible(name)}" of sandbox {sandbox.sandbox_id}: {what}\n')
