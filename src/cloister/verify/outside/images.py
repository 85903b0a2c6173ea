"""An image that asks for everything an image can ask for: made of the user's own, with other settings, and removed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cloister.errors import HostError
from cloister.runtimes import engine as engines
from cloister.runtimes.engine import Engine
from cloister.sandbox import registry
from cloister.session import container_place
from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import Done, World

_NAME = "cloister-verify"
_COMMIT_S = 120.0
_METADATA = json.dumps(
    [
        {
            "privileged": True,
            "capAdd": ["ALL"],
            "mounts": ["source=/,target=/host,type=bind"],
            "remoteUser": "root",
        }
    ]
)
_SETTINGS = (
    "USER 0:0",
    "WORKDIR /",
    'ENTRYPOINT ["/bin/sh", "-c", "echo entrypoint; exec \\"$@\\"", "entrypoint"]',
    'CMD ["--privileged"]',
    "ENV CLOISTER_SANDBOX=image",
    "ENV SSL_CERT_FILE=/image.pem",
    "VOLUME /image-volume",
    "EXPOSE 1",
    f"LABEL devcontainer.metadata='{_METADATA}' run='docker run --privileged' dev.cloister.sandbox=image",
)
_LOOK = """
import json, os
fields = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
mounts = [line.split(" ")[4] for line in open("/proc/self/mountinfo")]
names = ("CLOISTER_SANDBOX", "SSL_CERT_FILE")
print("seen", json.dumps([
    os.getuid(), [fields[name] for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")],
    "/host" in mounts, os.getcwd(), [os.environ.get(name) for name in names], os.access("/", os.W_OK),
]))
"""


def hostile(found: Probe, world: World, where: tuple[str, ...]) -> None:
    """Run the same command in the user's image and in the hostile one: what it sees is the same."""
    reference = container_place.reference(world.image, world.base)[1]
    engine = engines.find(world.runtime, world.environ, workspace=world.base, state_directory=world.state)
    script = ("--", "python3", "-I", "-c", _LOOK)
    with _made(engine, reference) as image:
        done = world.cloister(*where, f"--image={image}", *script)
    expected = world.cloister(*where, *script)
    found.control("the user's own image runs it", succeeded, expected.out.startswith("seen "), expected.said)
    found.control("the hostile image runs it", succeeded, "seen " in done.out, done.said)
    found.attack("its entry point runs", _entered, done)
    found.attack("it is another user, has capabilities, mounts, variables of ours", _differs, expected, done)


def _entered(done: Done) -> str:
    if "entrypoint" in done.out:
        return "it does"
    raise RefusedError("it does not")


def _differs(expected: Done, done: Done) -> str:
    one, other = (json.loads(text.out.partition("seen ")[2] or "null") for text in (expected, done))
    if other[0] == 0:
        return "it is root"
    one[4][0] = other[4][0] if other[4][0] != "image" else one[4][0]  # each sandbox has a name of its own
    if one == other:
        raise RefusedError(f"{other}")
    return f"{other} instead of {one}"


@contextmanager
def _made(engine: Engine, image: str) -> Iterator[str]:
    """The image with other settings. HostError if the engine does not make it."""
    _remove_abandoned(engine)
    me = registry.identify(os.getpid())
    name = f"{_NAME}-{os.getpid()}-{me.started if me is not None else 0}"
    container = f"{name}-made"
    try:
        created = engine.ask("create", "--pull=never", f"--name={container}", "--network=none", image, "true")
        changes = [f"--change={setting}" for setting in _SETTINGS]
        more = ["--format=docker"] if engine.name == engines.PODMAN else []
        made = engine.ask("commit", *more, *changes, container, f"{name}:latest", timeout_s=_COMMIT_S)
        if created.code or made.code:
            said = (created.errors + made.errors).decode(errors="replace").strip()
            raise HostError(f"an image could not be made of {image!r}", details=said)
        yield f"{name}:latest"
    finally:
        engine.ask("rm", "--force", "--volumes", container)
        engine.ask("rmi", "--force", f"{name}:latest")


def _remove_abandoned(engine: Engine) -> None:
    """What a killed verification has left; those of others who verify right now stay."""
    listing = engine.ask("images", "--format={{.Repository}}:{{.Tag}}").output.decode(errors="replace")
    for line in listing.split():
        words = line.rpartition("/")[2].partition(":")[0].removeprefix(f"{_NAME}-").split("-")
        if f"{_NAME}-" not in line or len(words) != 2 or not all(word.isdecimal() for word in words):
            continue
        if not registry.alive(registry.Process(pid=int(words[0]), started=int(words[1]))):
            engine.ask("rm", "--force", f"{_NAME}-{words[0]}-{words[1]}-made")
            engine.ask("rmi", "--force", line)
