"""Render one image as a build context: a Containerfile and the files that it copies.

Rule 1: this module does no I/O. The same layers and settings give the same bytes, on every machine.
Rule 2: nothing secret goes in: no file of the host, no token, no proxy's address. A mirror's address may stay in the
        image's history, never in its sources, so it may hold no password.
Rule 3: no program gains rights (SUID and SGID bits are taken off, sudo is removed), and the image's user is not root.
Rule 4: both builders of Docker and that of Podman 4 understand it: no here-documents, no `RUN --mount`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloister.images.layer import BASE, Layer
from cloister.images.tools import AUTHORITY, Mise, copying, fetching

CONTAINERFILE = "Containerfile"
DEFAULT_BASE = "docker.io/library/debian:bookworm-slim"
REPOSITORY = "cloister"
LATEST = "latest"
HASH_DIGITS = 12
USER_ID = 1000
NO_APT = "cloister: this base has no apt-get"
_FILES = "files"

# What sh runs before and after each installation. `$@` holds apt's options.
_BEFORE = (
    "set -eu",
    f"command -v apt-get >/dev/null || {{ echo '{NO_APT}' >&2; exit 1; }}",
    "export DEBIAN_FRONTEND=noninteractive",
    "set --",
    'if [ -n "$APT_MIRROR" ]; then'
    ' . /etc/os-release; all=main; [ "$ID" != ubuntu ] || all="main universe";'
    ' echo "deb $APT_MIRROR $VERSION_CODENAME $all" > /tmp/mirror.list;'
    " set -- -o Dir::Etc::SourceList=/tmp/mirror.list -o Dir::Etc::SourceParts=/dev/null; fi",
    'apt-get -q "$@" update',
)
_AFTER = (
    "apt-get clean",
    "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/* /tmp/* /root/.cache",
    "find / -xdev -type f -perm /6000 -exec chmod a-s {} +",
)
_NO_SUDO = "if dpkg -s sudo >/dev/null 2>&1; then SUDO_FORCE_REMOVE=yes apt-get -q purge -y sudo; fi"
_USER = (
    # Ubuntu's images have an ordinary user with this number already.
    f"name=$(getent passwd {USER_ID} | cut -d: -f1)",
    'if [ -n "$name" ]; then userdel -r "$name" 2>/dev/null || true; fi',
    f"useradd --uid {USER_ID} --create-home --shell /bin/zsh agent",
    f"install -d -o {USER_ID} -g {USER_ID} /workspace",
    ": > /etc/machine-id",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A build context: paths and texts, the Containerfile among them."""

    name: str
    files: Mapping[str, str]

    def recipe_hash(self) -> str:
        """12 hexadecimal digits of the context alone: whether cloister would still make it so."""
        return _digest([self.name, sorted(self.files.items())])

    def content_hash(self, *, base_id: str, platform: str) -> str:
        """12 hexadecimal digits of everything that the image is made of. `base_id`: what the base's name stands for."""
        return _digest([self.name, base_id, platform, sorted(self.files.items())])


def recipe(
    name: str,
    layers: Mapping[str, Layer],
    *,
    environment: Mapping[str, str],
    files: Mapping[str, str],
    tools: Sequence[str] = (),
    mise: Mise | None = None,
    authority: str = "",
) -> Recipe:
    """The context of one image. `environment` and `files` are what its package managers are told.

    `tools` are fetched by `mise`; `authority` is a PEM text that this fetching trusts too.
    """
    stages = [] if name == BASE else [layers[one] for one in layers[name].includes or (name,)]
    copied = {path: text for path, text in files.items() if text}
    last = stages[-1].name if stages else BASE
    settings = _variables(environment)
    fetched = bool(tools) and mise is not None
    text = "\n".join(
        [
            f"# The image {REPOSITORY}/{name}, made by cloister from its layers: change those instead.",
            f"ARG BASE={DEFAULT_BASE}",
            *_stage(layers[BASE], on="${BASE}", extra=(_NO_SUDO, *_USER)),
            *_languages(stages),
            *(
                fetching(tools, mise, on=last, settings=settings, authority=bool(authority))
                if mise and tools
                else []
            ),
            "",
            "# What package managers are told comes last: a change of it builds nothing above again",
            f"FROM {last} AS image",
            *(copying() if fetched else []),
            *([f"COPY {_FILES}/ /"] if copied else []),
            "ENV HOME=/home/agent",
            *settings,
            f"USER {USER_ID}:{USER_ID}",
            "WORKDIR /workspace",
            "ENTRYPOINT []",
            'CMD ["/bin/zsh"]',
            "",
        ]
    )
    context = {CONTAINERFILE: text, **{f"{_FILES}{path}": copied[path] for path in sorted(copied)}}
    return Recipe(name=name, files={**context, AUTHORITY: authority} if fetched and authority else context)


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:HASH_DIGITS]


def tag(name: str, version: str = LATEST) -> str:
    """The reference of an image of ours."""
    return f"{REPOSITORY}/{name}:{version}"


def _languages(stages: Sequence[Layer]) -> list[str]:
    """Each on the one before: what two images have in common from the base on is built once."""
    below = BASE
    lines = []
    for layer in stages:
        lines += _stage(layer, on=below, extra=())
        below = layer.name
    return lines


def _choosing(choices: Sequence[Sequence[str]]) -> list[str]:
    """Set $chosen to the first of these sets that apt knows all of, else to the last."""
    lines = [f'chosen="{" ".join(choices[-1])}"'] if choices else []
    for one in reversed(choices[:-1]):
        known = " && ".join(f'apt-cache "$@" show {name} >/dev/null 2>&1' for name in one)
        lines.append(f'if {known}; then chosen="{" ".join(one)}"; fi')
    return lines


def _variables(variables: Mapping[str, str]) -> list[str]:
    return [f"ENV {key}={json.dumps(value)}" for key, value in sorted(variables.items())]


def _stage(layer: Layer, *, on: str, extra: Sequence[str]) -> list[str]:
    wanted = [*sorted(layer.packages), *(["$chosen"] if layer.choices else [])]
    install = 'apt-get -q "$@" install -y --no-install-recommends ' + " ".join(wanted)
    there = [f"command -v {program} >/dev/null" for program in layer.provides]
    steps = [*_BEFORE, *_choosing(layer.choices), install, *extra, *layer.commands, *_AFTER, *there]
    return [
        "",
        f"# {layer.title}",
        f"FROM {on} AS {layer.name}",
        *(["USER 0"] if layer.name == BASE else []),  # the base may have another
        "ARG APT_MIRROR=",
        *_variables(dict(layer.environment)),
        "RUN " + "; \\\n    ".join(steps),
    ]
