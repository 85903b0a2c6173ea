"""`cloister token github-app OWNER/REPO`: print a token of a GitHub App, for scripts.

No other command shows a secret.

Rule 1: the token goes to standard output, alone; all else to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from urllib.parse import quote

from cloister.errors import UsageError
from cloister.secrets.source import Context, SourceError, fetch, parse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a token that is good for an hour at most."
    commands = parser.add_subparsers(dest="token_command", metavar="KIND", required=True)
    app = commands.add_parser("github-app", help="an installation token of a GitHub App, for one repository")
    app.add_argument("repository", metavar="OWNER/REPO", help="the repository that the token is for")
    app.add_argument("--app-id", metavar="N", default="", help="the App's number (default: GITHUB_APP_ID)")
    app.add_argument(
        "--key",
        metavar="SOURCE",
        default="",
        help="where its private key is: file:~/app.pem, op://… (default: env:GITHUB_APP_PRIVATE_KEY)",
    )
    app.add_argument(
        "--permission",
        metavar="NAME=LEVEL",
        action="append",
        default=[],
        help="contents=write; may be repeated (default: contents=read)",
    )
    app.add_argument("--api", metavar="URL", default="", help="of GitHub Enterprise: https://HOST/api/v3")


def execute(arguments: argparse.Namespace) -> int:
    text = source_text(
        arguments.repository,
        app_id=arguments.app_id,
        key=arguments.key,
        permissions=arguments.permission,
        api=arguments.api,
    )
    try:
        source = parse(text)
    except SourceError as error:
        raise UsageError(error.reason, resolution="see: cloister token github-app --help") from None
    value = fetch(source, Context(name=f"github-app:{arguments.repository}", environ=os.environ))
    sys.stdout.write(value.secret.reveal().decode() + "\n")
    return 0


def source_text(repository: str, *, app_id: str, key: str, permissions: list[str], api: str) -> str:
    """The same as a credential's `source`. UsageError."""
    if "?" in repository:
        raise UsageError("this names no repository of GitHub", resolution="for example: acme/widget")
    named = []
    for permission in permissions:
        name, equals, level = permission.partition("=")
        if not equals or ":" in permission or "," in permission:
            raise UsageError(
                f"--permission: {permission!r} is no permission", resolution="for example: contents=write"
            )
        named.append(f"{name}:{level}")
    options = {"app_id": app_id, "key": key, "permissions": ",".join(named), "api": api}
    query = "&".join(f"{name}={quote(value, safe=':/,')}" for name, value in options.items() if value)
    return f"github-app:{repository}" + (f"?{query}" if query else "")
