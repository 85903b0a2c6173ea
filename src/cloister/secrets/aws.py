"""`aws-sts:`: temporary credentials of AWS, through the tools that know how the user logs in.

    aws-sts:arn:aws:iam::…:role/R  AssumeRole (`aws sts assume-role`): as the user, or with ?profile=NAME, or with the
                                   keys (JSON) of another source, ?source=S; &duration=SECONDS
    aws-sts:profile/NAME           what the profile gives (`aws configure export-credentials`)
    aws-sts:vault/NAME             aws-vault's profile (`aws-vault exec --json`)

The value is JSON with AccessKeyId, SecretAccessKey and SessionToken, as `aws configure export-credentials` prints it.

Rule 1: keys of another source reach `aws` in a file that has no name (memfd), not in its environment.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace

from cloister.secret import Secret
from cloister.secrets import source as sources
from cloister.secrets.options import options
from cloister.secrets.program import moment
from cloister.secrets.run import output
from cloister.secrets.source import Context, Source, SourceError, Value, failed

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}")
_NAME = re.compile(r"[A-Za-z0-9_.@][A-Za-z0-9_.@ +/-]{0,127}")
_DURATION = re.compile(r"[0-9]{3,5}")
_DURATION_S = (900, 43200)  # what AssumeRole takes
_FIELDS = ("AccessKeyId", "SecretAccessKey", "SessionToken")
_OVERRIDING = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", *(f"AWS_{name}" for name in (
    "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "SECURITY_TOKEN")))  # fmt: skip
_PLAIN = {"AWS_PAGER": ""}  # else it may start a pager, which waits for a key
_EXPECTED = '"aws-sts:profile/NAME", "aws-sts:vault/NAME" or "aws-sts:" and the ARN of a role'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the source's text says. `kind`: "role", "profile" or "vault"."""

    kind: str
    name: str
    duration_s: str = ""
    profile: str = ""
    keys: Source | None = None


def check(source: Source) -> None:
    """SourceError unless it names a role or a profile."""
    _wanted(source)


def fetch(source: Source, context: Context) -> Value:
    """Keys, and when they end."""
    wanted = _wanted(source)
    if wanted.keys is None:
        content = output(_argv(wanted), source, context, extra=_PLAIN)
    else:
        content = _output_with_keys(wanted, wanted.keys, source, context)
    return _keys(content, source, context)


def as_keys(value: Value, source: Source, context: Context) -> Value:
    """Keys from any source: JSON as the tools of AWS print it. CredentialError."""
    found = _keys(value.secret.reveal(), source, context)
    return found if value.expires_at is None else replace(found, expires_at=value.expires_at)


def _keys(content: bytes, source: Source, context: Context) -> Value:
    try:
        document = json.loads(content)
        found = document.get("Credentials", document)  # `assume-role` wraps them
        texts = {name: found[name] for name in _FIELDS if found.get(name)}
        if not all(
            isinstance(text, str) and text.isascii() and text.isprintable() for text in texts.values()
        ):
            raise TypeError
        access_key, secret_key = texts["AccessKeyId"], texts["SecretAccessKey"]
        end = found.get("Expiration")
        expires_at = moment(end) if end else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        reason = "expected JSON with AccessKeyId and SecretAccessKey, and found something else"
        resolution = "aws configure export-credentials --format process prints such JSON"
        raise failed(source, context, reason, resolution=resolution) from None
    whole = {"Version": 1, "AccessKeyId": access_key, "SecretAccessKey": secret_key, **texts}
    whole |= {"Expiration": end} if end else {}
    # The key's id is no secret: AWS itself names it in answers.
    parts = tuple(
        Secret(context.name, text.encode()) for name, text in texts.items() if name != "AccessKeyId"
    )
    return Value(secret=Secret(context.name, json.dumps(whole).encode()), expires_at=expires_at, parts=parts)


def _output_with_keys(wanted: _Wanted, keys: Source, source: Source, context: Context) -> bytes:
    """What `aws` prints when it works with the keys of another source."""
    base = sources.fetch(keys, replace(context, several_lines=True))
    given = _keys(base.secret.reveal(), keys, context)
    fields = json.loads(given.secret.reveal())
    lines = ["[default]", f"aws_access_key_id = {fields['AccessKeyId']}"]
    lines += [f"aws_secret_access_key = {fields['SecretAccessKey']}"]
    lines += [f"aws_session_token = {fields['SessionToken']}"] if "SessionToken" in fields else []
    with open(os.memfd_create("keys", os.MFD_CLOEXEC), "wb") as file:
        file.write("\n".join([*lines, ""]).encode())
        file.flush()
        extra = {**_PLAIN, "AWS_SHARED_CREDENTIALS_FILE": f"/proc/self/fd/{file.fileno()}"}
        return output(
            _argv(wanted),
            source,
            context,
            extra=extra,
            without=_OVERRIDING,
            descriptors=[file.fileno()],
            known=given.confidential,
        )


def _argv(wanted: _Wanted) -> list[str]:
    """The command line that prints the keys."""
    name, duration_s = wanted.name, wanted.duration_s
    if wanted.kind == "profile":
        return ["aws", "configure", "export-credentials", "--profile", name, "--format", "process"]
    if wanted.kind == "vault":
        return ["aws-vault", "exec", "--json", *([f"--duration={duration_s}s"] if duration_s else []), name]
    argv = ["aws", "sts", "assume-role", "--output", "json", "--role-session-name", "cloister"]
    argv += ["--duration-seconds", duration_s] if duration_s else []
    argv += ["--profile", wanted.profile] if wanted.profile else []
    return [*argv, "--role-arn", name]


def _wanted(source: Source) -> _Wanted:
    target, _, query = source.argument.partition("?")
    if _ROLE.fullmatch(target):
        found = options(query, ("duration", "profile", "source"))
        if "profile" in found and "source" in found:
            raise SourceError("there are both a profile and a source", "one of them")
        return _Wanted(
            kind="role",
            name=target,
            duration_s=_duration(found),
            profile=_profile(found.get("profile", "")),
            keys=_base(found["source"]) if "source" in found else None,
        )
    kind, _, name = target.partition("/")
    if kind not in ("profile", "vault") or not _NAME.fullmatch(name):
        raise SourceError("this names no credentials of AWS", _EXPECTED)
    found = options(query, ("duration",) if kind == "vault" else ())
    return _Wanted(kind=kind, name=name, duration_s=_duration(found))


def _base(text: str) -> Source:
    base = sources.parse(text)
    if base.scheme in ("aws-sts", "github-app"):
        raise SourceError(
            f'"{base.scheme}:" cannot be the source of another one', "env:, file:, exec:, op: …"
        )
    return base


def _profile(name: str) -> str:
    if name and not _NAME.fullmatch(name):
        raise SourceError(f'"{name[:40]}" is no name of a profile', "profile=NAME")
    return name


def _duration(found: dict[str, str]) -> str:
    text = found.get("duration", "")
    least, most = _DURATION_S
    if text and not (_DURATION.fullmatch(text) and least <= int(text) <= most):
        raise SourceError(f'the duration "{text[:20]}" is wrong', f"seconds from {least} to {most}")
    return text
