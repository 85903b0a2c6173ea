"""`cloister policy show`: what the sandbox of this project may reach, and which file says so."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from cloister.cli.place import workspace_around
from cloister.config.compile import Overrides, compile_project
from cloister.config.profiles import PROFILES
from cloister.config.wording import visible
from cloister.policy.codec import parse_policy
from cloister.types import Policy, Rule, Transport


def configure(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="policy_command", metavar="COMMAND", required=True)
    show = commands.add_parser("show", help="show every grant and ban")
    show.add_argument("-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)")
    show.add_argument("--profile", metavar="NAME", help="as if this profile were chosen")
    show.add_argument("--json", action="store_true", help="the compiled plan, for a program")


def execute(arguments: argparse.Namespace) -> int:
    root = workspace_around(arguments.workspace)
    plan = compile_project(root, os.environ, Overrides(profile=arguments.profile))
    if arguments.json:
        shown = {key: plan[key] for key in ("profile", "policy", "hosts", "upstream_ca", "sandbox")}
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    else:
        sys.stdout.write(page(plan) + "\n")
    return 0


def page(plan: Mapping[str, object]) -> str:
    """The plan for people."""
    profile = str(plan["profile"])
    policy = parse_policy(plan["policy"])
    parts = [f"profile {profile}: {PROFILES[profile].description}", _files(plan["sources"])]
    if not PROFILES[profile].declared:
        parts.append(f'the profile "{profile}" leaves out what the files allow; their bans count')
    parts.append(_rules("allowed", policy.grants) if policy.grants else "allowed: nothing")
    if policy.bans:
        parts.append(_rules("banned, whatever is allowed", policy.bans))
    parts += _user_level(plan)
    parts.append(_limits(policy))
    return "\n\n".join(parts)


def _files(sources: object) -> str:
    """One line per file. The adopted copy is the project's file again."""
    entries = sources if isinstance(sources, list) else []
    lines = [
        f"  {visible(s['path'])}{'' if s['text'] is not None else '  (does not exist)'}" for s in entries[:2]
    ]
    return "\n".join(["files:", *lines])


def _rules(title: str, rules: Sequence[Rule]) -> str:
    rows = []
    told: set[str] = set()
    for rule in rules:
        # A preset's remark holds for all its hosts: said once.
        note = "" if f"{_origin(rule)} {rule.note}" in told else rule.note
        told.add(f"{_origin(rule)} {rule.note}")
        rows.append((_target(rule), rule.id, _conditions(rule, note)))
    return "\n".join([f"{title}:", *_columns(rows)])


def _origin(rule: Rule) -> str:
    """ "preset:pypi" of "preset:pypi:pypi.org"."""
    return ":".join(rule.id.split(":")[:2])


def _target(rule: Rule) -> str:
    ports = ",".join(str(port) for port in sorted(rule.ports))
    scheme = "tcp://" if rule.transport is Transport.TCP else ""
    return f"{scheme}{rule.pattern} :{ports}"


def _conditions(rule: Rule, note: str) -> str:
    parts = []
    if rule.methods:
        parts.append(f"methods {', '.join(sorted(rule.methods))}")
    if rule.paths:
        parts.append(f"paths {', '.join(rule.paths)}")
    if rule.address_ranges:
        parts.append(f"may resolve into {', '.join(rule.address_ranges)}")
    return "; ".join([*parts, *([note] if note else [])])


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]) - 1)]
    return [
        "  "
        + "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in table
    ]


def _user_level(plan: Mapping[str, object]) -> list[str]:
    parts = []
    hosts, authorities = plan["hosts"], plan["upstream_ca"]
    if isinstance(hosts, dict) and hosts:
        rows = [
            (name, pin["address"] + (f" port {pin['port']}" if pin["port"] else ""))
            for name, pin in hosts.items()
        ]
        parts.append("\n".join(["pinned by you:", *_columns(rows)]))
    if isinstance(authorities, list) and authorities:
        parts.append(
            "\n".join(["further certificate authorities:", *(f"  {visible(path)}" for path in authorities)])
        )
    return parts


def _limits(policy: Policy) -> str:
    lines = ["everything else is refused. To ask about one URL: cloister why URL"]
    if any(grant.id.startswith("preset:") for grant in policy.grants):
        lines.append(
            "presets work by name only in this release: hosts that only take uploads are left out, but where a "
            "registry takes uploads on the host that it serves from, a token in the sandbox could publish"
        )
    return "\n".join(lines)
