"""`cloister policy show`: what the sandbox of this project may reach, and which file says so."""

from __future__ import annotations

import argparse
import json
import os
import sys

from cloister.cli.place import workspace_around
from cloister.cli.policy_page import page
from cloister.config.compile import Overrides, compile_project

_SHOWN = ("profile", "policy", "ssh", "hosts", "upstream_ca", "sandbox")


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="policy_command", metavar="COMMAND", required=True)
    show = commands.add_parser("show", help="show every grant, ban and credential (never a value)")
    show.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")
    show.add_argument("--profile", metavar="NAME", help="as if this profile were chosen")
    show.add_argument("--json", action="store_true", help="the compiled plan, for a program")


def execute(arguments: argparse.Namespace) -> int:
    root = workspace_around(arguments.workspace)
    plan = compile_project(root, os.environ, Overrides(profile=arguments.profile))
    if arguments.json:
        shown = {key: plan[key] for key in _SHOWN}
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    else:
        sys.stdout.write(page(plan) + "\n")
    return 0
