"""What a sandbox is shown of its credentials: variables and files that hold placeholders.

In a preset's or a user's text `{placeholder}` is the placeholder, `{basic}` base64 of USER:placeholder for the user
that is injected, `{aws-secret}` a secret key that signs nothing; a text with `{host}` is repeated for each exact host.

Rule 1: a variable that steers programs (PATH, LD_*, proxies, certificates) never holds a placeholder.
Rule 2: a file is one of the sandbox's home, by a path without "..", and holds nothing but its template.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from cloister.config.model import CredentialTable
from cloister.config.place import Place
from cloister.config.preset import CredentialPreset
from cloister.credentials import placeholder
from cloister.types import BasicInjection, Credential, Reach

FILE_LIMIT_CHARACTERS = 16 * 1024
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PATH = re.compile(r"~(?:/[A-Za-z0-9_.@+ -]{1,100}){1,8}")
# What sandbox/environment.py sets, and what else makes programs load or do something; a test compares.
_STEERING_TEXT = """
ALL_PROXY AWS_CA_BUNDLE BASH_ENV CARGO_HTTP_CAINFO CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE CURL_CA_BUNDLE DENO_CERT
DENO_TLS_CA_STORE ENV GIT_CONFIG_GLOBAL GIT_SSH GIT_SSH_COMMAND GIT_SSL_CAINFO GRPC_DEFAULT_SSL_ROOTS_FILE_PATH
HEX_CACERTS_PATH HOME HTTPS_PROXY HTTP_PROXY IFS JAVA_TOOL_OPTIONS LOGNAME NIX_SSL_CERT_FILE NODE_EXTRA_CA_CERTS
NODE_OPTIONS NODE_USE_ENV_PROXY NO_PROXY PATH PERL5OPT PIP_CERT PYTHONHOME PYTHONPATH PYTHONSTARTUP REQUESTS_CA_BUNDLE
RUBYOPT SHELL SSH_AUTH_SOCK SSL_CERT_DIR SSL_CERT_FILE TMPDIR USER XDG_RUNTIME_DIR
all_proxy http_proxy https_proxy no_proxy
"""
STEERING = frozenset(_STEERING_TEXT.split())
STEERING_PREFIXES = ("LD_", "GLIBC_", "BASH_FUNC_", "CLOISTER_")


def environment(
    table: CredentialTable, where: Place, preset: CredentialPreset | None, credential: Credential, seed: str
) -> dict[str, str]:
    """The variables of one credential, with their values."""
    if table.env is None:
        templates = preset.environment if preset else {}
        return {name: _filled(template, credential, seed) for name, template in templates.items()}
    names = [table.env] if isinstance(table.env, str) else table.env
    for name in names:
        if not _VARIABLE.fullmatch(name):
            raise where.item("env").error(
                "this is no name of an environment variable", expected="letters, digits and _", found=name
            )
        if name in STEERING or name.startswith(STEERING_PREFIXES):
            raise where.item("env").error(
                "this variable steers programs, so it cannot hold a placeholder",
                expected="the variable that a tool reads the credential from",
                found=name,
            )
    known = preset.environment if preset else {}
    return {name: _filled(known.get(name, "{placeholder}"), credential, seed) for name in names}


def files(
    table: CredentialTable, where: Place, preset: CredentialPreset | None, credential: Credential
) -> dict[str, str]:
    """The files of one credential: path below the home → text."""
    if table.files is None:
        templates = preset.files if preset else {}
    else:
        templates = table.files
        for path, template in templates.items():
            _check(path, template, where.item("files").item(path), credential)
    texts = {path[2:]: _per_host(template, credential) for path, template in templates.items()}
    return {path: text for path, text in texts.items() if text}


def together(texts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The files of several credentials. JSON objects are merged, other texts put one behind the other."""
    found: dict[str, list[str]] = {}
    for one in texts:
        for path, text in one.items():
            known = found.setdefault(path, [])
            known += [text] if text not in known else []
    return {path: _joined(path, parts) for path, parts in found.items()}


def _joined(path: str, parts: list[str]) -> str:
    if path.endswith(".json"):
        documents = [json.loads(part) for part in parts]
        merged = documents[0]
        for document in documents[1:]:
            merged = _merged(merged, document)
        return json.dumps(merged, indent=2) + "\n"
    return "".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _merged(one: object, other: object) -> object:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    return {**one, **{key: _merged(one.get(key), value) for key, value in other.items()}}


def _check(path: str, template: str, where: Place, credential: Credential) -> None:
    if not _PATH.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise where.error("this is no file of the sandbox's home", expected='"~/…", without ".."', found=path)
    if "{placeholder}" not in template and "{basic}" not in template:
        raise where.error(
            "the file's text holds no placeholder", expected="a text with {placeholder} in it", found=template
        )
    if "{basic}" in template and not _user(credential):
        raise where.error(
            "{basic} is for a credential with a user", expected='inject = "basic:USER"', found=template
        )
    text = _per_host(template, credential)
    if len(text) > FILE_LIMIT_CHARACTERS or "\0" in text:
        raise where.error(
            "this is no text for such a file", expected="at most 16 KiB, without NUL", found=template
        )
    if path.endswith(".json") and not _is_json(text):
        raise where.error("this is no JSON object", expected="as the file's name says", found=template)


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _per_host(template: str, credential: Credential) -> str:
    text = _filled(template.removeprefix("\n"), credential, "")
    if "{host}" not in text:
        return text
    hosts = [
        f"{binding.pattern}" + "".join(f":{port}" for port in binding.ports - {443})
        for binding in credential.bindings
        if binding.pattern.reach is Reach.EXACT
    ]
    return "".join(text.replace("{host}", host) for host in dict.fromkeys(hosts))


def _filled(template: str, credential: Credential, seed: str) -> str:
    pair = base64.b64encode(f"{_user(credential)}:{credential.placeholder}".encode()).decode()
    text = template.replace("{placeholder}", credential.placeholder).replace("{basic}", pair)
    if "{aws-secret}" in text:
        digest = hashlib.sha256(f"{seed}\0aws-secret".encode("utf-8", "surrogateescape")).digest()
        text = text.replace("{aws-secret}", placeholder.make("aws-secret", digest))
    return text


def _user(credential: Credential) -> str:
    users = [b.injection.user for b in credential.bindings if isinstance(b.injection, BasicInjection)]
    return users[0] if users else ""
