"""Where a sandbox in a container engine will be: what a start needs of the engine is looked for, and nothing is made.

Rule 1: what cannot serve is refused by name, with what to type instead.
"""

from __future__ import annotations

import os

from cloister.errors import CloisterError, HostError
from cloister.runtimes import engine as engines
from cloister.runtimes import oci_image, oci_runtime
from cloister.sandbox import registry
from cloister.sandbox.facts import Facts
from cloister.sandbox.image import Image
from cloister.sandbox.plan import Plan
from cloister.values import dataclass

_ANOTHER = "use an engine of this host, or do without containers: --runtime embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the sandbox will be: an engine that answers, and the images that its containers are made of."""

    engine: engines.Engine
    image: Image
    runtime: oci_runtime.Runtime

    @property
    def elsewhere(self) -> bool:
        """Whether the gateway runs in a container, too."""
        return self.runtime.program is oci_runtime.GATEWAY


def find(plan: Plan, facts: Facts, *, state_directory: str, workspace: str) -> Place:
    """Check all that a start needs of the engine. HostError says what is missing; nothing is made."""
    sandbox = plan["sandbox"]
    if not isinstance(sandbox, dict):
        raise CloisterError("the stored plan is damaged", resolution="run: cloister policy show")
    engine = engines.find(
        str(sandbox["runtime"]), facts.environ, workspace=workspace, state_directory=state_directory
    )
    elsewhere = sandbox.get("gateway") == "container" or not engine.local
    _check(engine, plan, elsewhere=elsewhere)
    named = str(sandbox.get("image") or "")
    ours, named_there = reference(named, workspace)
    try:
        image = oci_image.look(engine, named_there, state_directory)
    except HostError as error:
        if not ours or "is not there" not in error.brief:
            raise
        raise HostError(
            f"the image {ours!r} has not been built on this engine ({engine.name})",
            details="it is the one for the project's language" if not named else "",
            resolution=f"run: cloister image build {ours} --runtime {engine.name}",
        ) from error
    program = oci_runtime.GATEWAY if elsewhere else oci_runtime.HOLDER
    return Place(engine=engine, image=image, runtime=oci_runtime.runtime(state_directory, program))


def is_current(
    container: registry.Container, plan: Plan, facts: Facts, *, state_directory: str, workspace: str
) -> bool:
    """Whether a running sandbox was made of the image that its name stands for now."""
    found = find(plan, facts, state_directory=state_directory, workspace=workspace)
    return (found.engine.name, found.image.id) == (container.engine, container.image)


def reference(named: str, workspace: str) -> tuple[str, str]:
    """The image's name among ours, or "", and how the engine knows it."""
    if named and not named.isalpha():  # ours are plain words
        return "", named
    from cloister.images import choose, layer, render  # deferred: they parse all layers

    if named and named not in layer.names():
        return "", named
    ours = named or choose.detected(workspace).image
    return ours, render.tag(ours)


def _check(engine: engines.Engine, plan: Plan, *, elsewhere: bool) -> None:
    signing = plan.get("ssh")
    if elsewhere and isinstance(signing, dict) and signing.get("agent") is True:
        raise HostError(
            "an SSH agent cannot be forwarded where the gateway runs in a container",
            details='[ssh] agent = true, and [sandbox] gateway = "container"',
            resolution='set [sandbox] gateway = "host", or take [ssh] agent out',
        )
    if not engine.local:
        _check_machine(engine)
    if engine.remote:
        _check_remote(engine, plan)
    if engine.name == engines.DOCKER and engine.rootless:
        raise HostError(
            "rootless Docker gives every file of yours to its containers' root",
            details="it cannot run the agent as another user who owns the workspace, as rootless Podman can",
            resolution="use Podman: --runtime podman",
        )


def _check_machine(engine: engines.Engine) -> None:
    """An engine whose processes are not of this kernel."""
    if engine.machine and engine.machine != os.uname().machine:
        raise HostError(
            f"the {engine.name} engine's machine has another kind of processor ({engine.machine}) than this host",
            details="the gateway's container runs this host's Python",
            resolution=_ANOTHER,
        )
    if engine.shares and os.geteuid() == 0:
        raise HostError(
            f"as root, cloister does not use a {engine.name} engine in a virtual machine",
            details="the agent would own nothing of the workspace: ID-mapped mounts do not reach into the machine",
            resolution="run it as an ordinary user",
        )


def _check_remote(engine: engines.Engine, plan: Plan) -> None:
    """An engine on another machine has no file of this host: what needs one is refused. See session/away.py."""
    if engine.name != engines.DOCKER:
        raise HostError(
            f"{engine.name} runs its containers on another machine, or in a virtual one",
            details="only Docker is used there",
            resolution=_ANOTHER,
        )
    if not engine.confidential:
        raise HostError(
            f"everybody on the way to {engine.endpoint} could read your credentials",
            details="it is reached over TCP, without TLS that proves who answers",
            resolution="use ssh://USER@HOST, or TLS (DOCKER_TLS_VERIFY=1): https://docs.docker.com/engine/security/protect-access",
        )
    sandbox = plan["sandbox"]
    settings = sandbox if isinstance(sandbox, dict) else {}
    if settings.get("workspace", "bind") == "bind":
        raise HostError(
            f"{engine.endpoint} is an engine on another machine, which cannot show a sandbox this directory",
            details='[sandbox] workspace is "bind"; a copy, and what comes back of it by `cloister apply`, is possible',
            resolution='set [sandbox] workspace = "volume" (or "clone"), '
            "or use an engine of this host: --runtime embedded needs none",
        )
    if settings.get("read_only"):
        raise HostError(
            f"{engine.endpoint} is an engine on another machine, which cannot show a sandbox files of this host",
            details="[sandbox] read_only names some",
            resolution="take that out, and bring them there: cloister cp",
        )
    if plan.get("services"):
        raise HostError(
            f"services of an engine on another machine ({engine.endpoint}) cannot be reached from here",
            details="[services] declares some",
            resolution="start them on this host, and name them in [network.hosts]",
        )
