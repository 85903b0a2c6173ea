"""`cloister secret list|test|explain`: which credentials there are, from where, bound to what, and whether they work.

Rule 1: a value is never shown: its length, its end and four hexadecimal digits of its SHA-256 tell it from another.
Rule 2: `list` and `explain` start nothing and fetch nothing; a live sandbox is asked how it stands.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from cloister.cli import live, secret_page
from cloister.cli.live import Live
from cloister.cli.place import workspace_around
from cloister.config import directories
from cloister.config.compile import Overrides, compile_project
from cloister.config.directories import Project
from cloister.config.wording import visible
from cloister.credentials.inject import inject, place
from cloister.errors import CredentialError, UsageError
from cloister.messages import RequestHead
from cloister.policy.codec import parse_policy
from cloister.secrets.source import Context, Value, value_of
from cloister.types import Credential

WORKS, FAILS = 0, 1
_NONE = (
    "This project has no credentials. In the project's cloister.toml or in your own configuration:\n"
    '  [[credential]]\n  name = "github"\n  source = "env:GITHUB_TOKEN"\n  preset = "github"'
)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show and test the credentials of this project; values are never shown."
    commands = parser.add_subparsers(dest="secret_command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="show every credential, and how it stands in live sandboxes")
    listing.add_argument("--json", action="store_true", help="for a program")
    test = commands.add_parser("test", help="fetch credentials, and say whether they work")
    test.add_argument("credential", metavar="NAME", nargs="?", default="", help="only this one")
    explain = commands.add_parser("explain", help="show everything about one credential")
    explain.add_argument("credential", metavar="NAME", help="the credential")
    for command in (listing, test, explain):
        command.add_argument(
            "-C", "--workspace", metavar="DIR", default=".", help="the project (default: here)"
        )


def execute(arguments: argparse.Namespace) -> int:
    project = directories.project(workspace_around(arguments.workspace), os.environ)
    plan = compile_project(project.workspace, os.environ, Overrides())
    credentials = parse_policy(plan["policy"]).credentials
    match arguments.secret_command:
        case "list":
            return show_list(credentials, live.of_project(project), as_json=arguments.json)
        case "test":
            chosen = [named(credentials, arguments.credential)] if arguments.credential else credentials
            return test(chosen, context_of(project, plan, os.environ))
        case _:
            sys.stdout.write(secret_page.page(named(credentials, arguments.credential), plan) + "\n")
            return 0


def named(credentials: Sequence[Credential], name: str) -> Credential:
    """The credential of that name. UsageError."""
    for credential in credentials:
        if credential.name == name:
            return credential
    names = [credential.name for credential in credentials]
    near = difflib.get_close_matches(name, names, n=1)
    known = f"there are: {', '.join(names)}" if names else "this project has none"
    raise UsageError(
        f"there is no credential {visible(name)!r}", resolution=f"did you mean: {near[0]}" if near else known
    )


def show_list(credentials: Sequence[Credential], sandboxes: Sequence[Live], *, as_json: bool) -> int:
    """One line for each credential."""
    states = {sandbox.short: _by_name(sandbox.entries("credentials")) for sandbox in sandboxes}
    if as_json:
        found = [_document(credential, states) for credential in credentials]
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    if not credentials:
        sys.stdout.write(_NONE + "\n")
        return 0
    rows: list[tuple[str, ...]] = [("name", "source", "bound to", "place", "expires", "confirm", "state")]
    rows += [_row(credential, states) for credential in credentials]
    sys.stdout.write("\n".join(columns(rows)) + "\n")
    return 0


def columns(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Rows of equal length, aligned; the last column is as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join([*cells, row[-1]]).rstrip()


def _by_name(entries: Iterable[dict[str, object]]) -> dict[str, dict[str, object]]:
    return {str(entry.get("name")): entry for entry in entries}


def _row(credential: Credential, states: Mapping[str, Mapping[str, dict[str, object]]]) -> tuple[str, ...]:
    found = {
        short: by_name[credential.name] for short, by_name in states.items() if credential.name in by_name
    }
    places = dict.fromkeys(
        place(binding.injection) or "wherever it stands" for binding in credential.bindings
    )
    ends = [
        entry["expires_at"] for entry in found.values() if isinstance(entry.get("expires_at"), int | float)
    ]
    words = [
        visible(" ".join(filter(None, (str(entry["state"]), str(entry.get("reason") or "")))))
        + (f" ({short})" if len(states) > 1 else "")
        for short, entry in found.items()
    ]
    return (
        credential.name,
        visible(credential.source),
        ", ".join(dict.fromkeys(str(binding.pattern) for binding in credential.bindings)),
        ", ".join(places),
        ends_in(min(ends), now=time.time()) if ends else "-",  # type: ignore[type-var]  # all are numbers
        "yes" if credential.confirm else "no",
        "; ".join(words) or ("no sandbox runs" if not states else "not in the sandbox that runs"),
    )


def _document(
    credential: Credential, states: Mapping[str, Mapping[str, dict[str, object]]]
) -> dict[str, object]:
    return {
        "name": credential.name,
        "source": credential.source,
        "bound_to": sorted({str(binding.pattern) for binding in credential.bindings}),
        "places": sorted({place(binding.injection) for binding in credential.bindings}),
        "confirm": credential.confirm,
        "sandboxes": {
            short: {key: by_name[credential.name].get(key) for key in ("state", "expires_at", "reason")}
            for short, by_name in states.items()
            if credential.name in by_name
        },
    }


def ends_in(end: object, *, now: float) -> str:
    """ "in 43 min", "4 s ago"."""
    left = float(end) - now if isinstance(end, int | float) else 0.0
    amount = abs(left)
    text = next(
        f"{amount / unit:.0f} {name}"
        for unit, name in ((86400, "days"), (3600, "h"), (60, "min"), (1, "s"))
        if amount >= 2 * unit or unit == 1
    )
    return f"in {text}" if left > 0 else f"{text} ago"


def context_of(project: Project, plan: Mapping[str, object], environ: Mapping[str, str]) -> Context:
    """As the gateway would fetch. The name is filled in for each."""
    authorities = plan["upstream_ca"]
    return Context(
        name="",
        environ=environ,
        upstream_ca=tuple(authorities) if isinstance(authorities, list) else (),
        untrusted=(project.workspace, os.path.realpath(project.home)),
    )


def test(credentials: Sequence[Credential], context: Context) -> int:
    """Fetch each, and say how it went. 1 if one of them fails."""
    if not credentials:
        sys.stdout.write(_NONE + "\n")
    code = WORKS
    for credential in credentials:
        try:
            text = works(credential, context)
        except CredentialError as error:
            text, code = f"{credential.name}: fails\n{_indented(error)}", FAILS
        sys.stdout.write(visible(text) + "\n")
        sys.stdout.flush()  # the next one may take half a minute
    return code


def works(credential: Credential, context: Context) -> str:
    """What is told of a value that could be had, and that fits where it is to stand. CredentialError."""
    from dataclasses import replace

    value = value_of(credential, replace(context, name=credential.name))
    now = context.clock()
    if value.expires_at is not None and value.expires_at <= now:
        raise CredentialError(
            f'credential "{credential.name}": its source gave a value that expired {ends_in(value.expires_at, now=now)}'
        )
    head = RequestHead(method="GET", untrusted_authority="example.invalid", path="/")
    for binding in credential.bindings:
        inject(head, binding.injection, value.secret)  # UnfitSecretError
    return f"{credential.name}: works: {_told(value, now=now)}"


def _told(value: Value, *, now: float) -> str:
    from cloister.credentials.redact import LEAST_BYTES

    content = value.secret.reveal()
    end = "does not say when it expires"
    if value.expires_at is not None:
        end = f"expires {ends_in(value.expires_at, now=now)}"
    short = "" if len(content) >= LEAST_BYTES else "; too short to be masked in answers"
    return f"{len(content)} bytes, {end}, fingerprint {sha256(content).hexdigest()[:4]}{short}"


def _indented(error: CredentialError) -> str:
    return "\n".join(f"  {line}" for line in str(error).splitlines())
