"""`op://…`, `gh:`, `keychain:` and `pass:`: password managers, through their own command lines.

They ask the user as they always do (a prompt of the desktop, a hardware key); we wait for them until the deadline.

Rule 1: nothing of a source becomes an option of theirs.
"""

from __future__ import annotations

from urllib.parse import unquote

from cloister.errors import UntrustedInputError
from cloister.policy.names import parse_host
from cloister.secrets.run import output
from cloister.secrets.source import Context, Source, SourceError, Value, checked


def check(source: Source) -> None:
    """SourceError unless it names an entry."""
    argument = source.argument
    match source.scheme:
        case "op":
            path = argument[2:].partition("?")[0].split("/")
            if not argument.startswith("//") or len(path) < 3 or not all(path):
                raise SourceError("this is no reference of 1Password", '"op://VAULT/ITEM/FIELD"')
        case "gh":
            try:
                if argument:
                    parse_host(argument)
            except UntrustedInputError as error:
                raise SourceError(f"this is no host: {error}", '"gh:" or "gh:HOST"') from None
        case "keychain":
            service, slash, account = _entry(argument)
            if not service or service.startswith("-") or (slash and (not account or account.startswith("-"))):
                expected = '"keychain:SERVICE" or "keychain:SERVICE/ACCOUNT" ("%2F" for a slash in a name)'
                raise SourceError("this names no entry of a keychain", expected)
        case "pass" if not argument or argument.startswith(("-", "/")) or ".." in argument.split("/"):
            raise SourceError("this names no entry of pass", '"pass:PATH/OF/ENTRY"')


def fetch(source: Source, context: Context) -> Value:
    """What the program prints; of `pass` the first line, as its own users take it."""
    content = output(argv(source, platform=context.platform), source, context)
    if source.scheme == "pass" and not context.several_lines:
        content = content.split(b"\n", 1)[0]
    return Value(secret=checked(content, source, context))


def argv(source: Source, *, platform: str) -> list[str]:
    """The command line that prints the secret."""
    argument = source.argument
    match source.scheme:
        case "op":
            return ["op", "read", "--no-newline", f"op:{argument}"]
        case "gh":
            return ["gh", "auth", "token", *(["--hostname", argument] if argument else [])]
        case "pass":
            return ["pass", "show", argument]
    service, _, account = _entry(argument)
    if platform == "darwin":
        of_account = ["-a", account] if account else []
        return ["security", "find-generic-password", "-w", "-s", service, *of_account]
    return ["secret-tool", "lookup", "service", service, *(["account", account] if account else [])]


def _entry(argument: str) -> tuple[str, str, str]:
    service, slash, account = argument.partition("/")
    return unquote(service), slash, unquote(account)
