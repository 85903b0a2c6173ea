"""Talk to a container engine through its command line: find it, ask it, and let it build.

Its command, and what that gets of the user's environment, is found by `engines/client.py`; building needs the proxies
in addition.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cloister.engines import client as clients
from cloister.engines.client import DOCKER, NAMES, PODMAN, PROXIES
from cloister.errors import HostError, UsageError
from cloister.system import proc

_ASK_S = 30.0
_BUILDKIT_WITHIN = 23  # the client's version from which on BuildKit is buildx, a program of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A container engine that answers. `buildkit`: its client builds with it; `buildx`: through that program."""

    name: str
    program: str
    platform: str
    environment: Mapping[str, str]
    buildkit: bool = False
    buildx: bool = False

    def ask(self, *arguments: str, timeout_s: float = _ASK_S) -> proc.Finished:
        """Run one of its commands to the end."""
        return proc.run([self.program, *arguments], environment=self.environment, timeout_s=timeout_s)

    def follow(self, arguments: Sequence[str], *, timeout_s: float, hear: Callable[[str], None]) -> int:
        """Run a long one, line by line; the exit code."""
        environment = {**self.environment, "DOCKER_BUILDKIT": "1" if self.buildkit else "0"}
        return proc.follow(
            [self.program, *arguments], environment=environment, timeout_s=timeout_s, hear=hear
        )


def find(runtime: str | None, environ: Mapping[str, str], *, untrusted: Sequence[str] = ()) -> Engine:
    """The engine of that name, else the first one that there is. HostError if there is none, or it does not answer.

    `untrusted`: directories that a sandbox can write.
    """
    if runtime is not None and runtime not in NAMES:
        raise UsageError(f"--runtime: {runtime!r} builds no images", details=f"expected: {', '.join(NAMES)}")
    wanted = NAMES if runtime is None else (runtime,)
    for name in wanted:
        if client := clients.find(name, environ, untrusted=untrusted, also=PROXIES):
            return _asked(name, client.program, client.environment)
    raise HostError(
        f"there is no container engine: {' and '.join(wanted)} {'are' if len(wanted) > 1 else 'is'} not on PATH",
        resolution="install one, as in: sudo apt-get install podman",
    )


def _asked(name: str, program: str, environment: Mapping[str, str]) -> Engine:
    found = proc.run([program, *_QUESTIONS[name]], environment=environment, timeout_s=_ASK_S)
    if found.code != 0:
        raise unreachable(name, found.errors.decode(errors="replace"))
    client, _, platform = found.output.decode(errors="replace").strip().partition(" ")
    buildx = name == DOCKER and _has_buildx(program, environment)
    return Engine(
        name=name,
        program=program,
        platform=platform,
        environment=environment,
        buildkit=buildx or (name == DOCKER and _major(client) < _BUILDKIT_WITHIN),
        buildx=buildx,
    )


_QUESTIONS = {
    DOCKER: ("version", "--format", "{{.Client.Version}} {{.Server.Os}}/{{.Server.Arch}}"),
    PODMAN: ("info", "--format", "{{.Version.Version}} {{.Host.OS}}/{{.Host.Arch}}"),
}


def unreachable(name: str, errors: str) -> HostError:
    """An engine's command is there, the engine does not answer."""
    denied = "permission denied" in errors.lower()
    if name == PODMAN:
        resolution = "see what this says: podman info"
    elif denied:
        resolution = (
            "become a member of its socket's group: sudo usermod -aG docker $USER; "
            "or use Podman: --runtime podman"
        )
    else:
        resolution = "start it: sudo systemctl start docker; or use Podman: --runtime podman"
    brief = "may not be used by you" if denied else "does not answer"
    return HostError(
        f"the {name} engine {brief}",
        details="\n".join(errors.strip().splitlines()[-3:]),
        resolution=resolution,
    )


def image_id(engine: Engine, reference: str) -> str | None:
    """The id of an image that the engine has, or None."""
    found = engine.ask("image", "inspect", "--format", "{{.Id}}", reference)
    return found.output.decode().strip() if found.code == 0 else None


def image_platform(engine: Engine, reference: str) -> str | None:
    """What an image runs on, as in linux/amd64, or None."""
    found = engine.ask("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", reference)
    return found.output.decode(errors="replace").strip() if found.code == 0 else None


def image_label(engine: Engine, reference: str, label: str) -> str | None:
    """A label of an image, empty if it has none; None if the engine does not have the image."""
    template = '{{index .Config.Labels "' + label + '"}}'
    found = engine.ask("image", "inspect", "--format", template, reference)
    return found.output.decode(errors="replace").strip() if found.code == 0 else None


def image_digests(engine: Engine, reference: str) -> tuple[str, ...]:
    """The names by digest under which registries have an image; none for one that was made here."""
    found = engine.ask("image", "inspect", "--format", "{{json .RepoDigests}}", reference)
    digests = json.loads(found.output) if found.code == 0 else None
    return tuple(map(str, digests)) if isinstance(digests, list) else ()


def _has_buildx(program: str, environment: Mapping[str, str]) -> bool:
    return proc.run([program, "buildx", "version"], environment=environment, timeout_s=_ASK_S).code == 0


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdigit() else _BUILDKIT_WITHIN
