"""Tools by version in an image, as in `--tool node@22`: fetched by mise in a stage that is left behind.

Rule 1: this module does no I/O. A tool's name is a person's word for a shell's line: it is checked here, and quoted.
Rule 2: mise itself is pinned by its hash. What it fetches it verifies as far as each tool's authors allow.
Rule 3: the image gets the tools and links to them, neither mise (150 MB) nor the authority that `--ca` names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloister.errors import UsageError

STAGE = "tools"
AUTHORITY = "fetch/ca.pem"
NOT_PINNED = "cloister: there is no pinned mise for this architecture"
NOT_FETCHED = "cloister: mise could not be fetched"
NOT_INSTALLED = "cloister: a tool could not be installed"
_TOOL = re.compile(r"[a-z0-9][a-z0-9._:/@-]{0,80}@[A-Za-z0-9][A-Za-z0-9._+-]{0,40}")
_INSTALLS = "/opt/mise/installs"
_LINKS = "/opt/mise/links"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mise:
    """Where mise is, by Debian's names of architectures: (address, SHA-512)."""

    sources: Mapping[str, tuple[str, str]]


def is_tool(text: str) -> bool:
    """Whether this is a tool with a version."""
    return _TOOL.fullmatch(text) is not None and ".." not in text


def checked_tool(text: str) -> str:
    """The same; UsageError if it is no tool with a version."""
    if not is_tool(text):
        raise UsageError(
            f"--tool: {text!r} is no tool with a version",
            resolution="for example: --tool node@22 --tool npm:pnpm@10",
        )
    return text


def checked_authority(path: str, text: str) -> str:
    """The certificates of a PEM file; UsageError if it has none, or holds a key."""
    if "PRIVATE KEY" in text:
        raise UsageError(
            f"--ca: {path!r} holds a private key", resolution="give a file with certificates alone"
        )
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UsageError(f"--ca: {path!r} holds no certificate", resolution="give a PEM file")
    return text


def fetching(
    tools: Sequence[str], mise: Mise, *, on: str, settings: Sequence[str], authority: bool
) -> list[str]:
    """The lines of the stage that fetches. `settings`: ENV lines of the package managers."""
    steps = [
        "set -eu",
        "export CA=/tmp/ca.pem",
        "cat /etc/ssl/certs/ca-certificates.crt" + (f" /{AUTHORITY}" if authority else "") + " > $CA",
        "export SSL_CERT_FILE=$CA CURL_CA_BUNDLE=$CA NODE_EXTRA_CA_CERTS=$CA CARGO_HTTP_CAINFO=$CA PIP_CERT=$CA",
        'case "$(dpkg --print-architecture)" in '
        + " ".join(f"{name}) url={url}; sum={sha};;" for name, (url, sha) in sorted(mise.sources.items()))
        + f" *) echo '{NOT_PINNED}' >&2; exit 1;; esac",
        "mkdir /tmp/mise",
        f"curl -fsSL \"$url\" -o /tmp/mise.tgz || {{ echo '{NOT_FETCHED}' >&2; exit 1; }}",
        'echo "$sum  /tmp/mise.tgz" | sha512sum -c -',
        "tar -xzf /tmp/mise.tgz -C /tmp/mise --strip-components=1",
        "export PATH=/tmp/mise/bin:$PATH MISE_DATA_DIR=/opt/mise MISE_CACHE_DIR=/tmp/cache MISE_YES=1",
        f"mkdir -p {_INSTALLS} {_LINKS}",
    ]
    for tool in map(shlex.quote, tools):
        steps += [
            f"mise install {tool} || {{ echo '{NOT_INSTALLED}: {tool}' >&2; exit 1; }}",
            f"for d in $(mise bin-paths {tool}); do ln -sf $d/* {_LINKS}/; done",
        ]
    steps.append("find /opt/mise -type f -perm /6000 -exec chmod a-s {} +")
    return [
        "",
        "# Tools by version. What fetches them is left behind",
        f"FROM {on} AS {STAGE}",
        *([f"COPY {AUTHORITY} /{AUTHORITY}"] if authority else []),
        *settings,
        "RUN " + "; \\\n    ".join(steps),
    ]


def copying() -> list[str]:
    """The lines of the final stage that take them over."""
    return [f"COPY --from={STAGE} {_INSTALLS} {_INSTALLS}", f"COPY --from={STAGE} {_LINKS}/ /usr/local/bin/"]
