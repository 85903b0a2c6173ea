"""What others write and cloister passes on: words of a command, values, a devcontainer.json, an image's own settings
(CFG-2). None of it becomes an option of what makes the sandbox.
"""

from __future__ import annotations

import json
import os

from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside import images
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import Done, World

_WORDS = (
    "--bind", "/", "/host", "--privileged", "-v/:/host", "--cap-add=ALL", "--", "-", "", "$(id)", "`id`", "; id",
    "a\nb", "a b", "'", '"', "\\", "%s", "*", "ü",
)  # fmt: skip
# Each would give the host's files or its root away, if the runtime took it for its own options.
_COMMANDS = {
    "embedded": (("--ro-bind", "/", "/tmp/host", "true"), ("--", "--bind", "/", "/", "true"), ("-c", "true")),  # noqa: S108
    "": (("--cap-add=ALL", "true"), ("--privileged", "true"), ("--", "--volume=/:/host", "true")),
}
_VALUES = ("1 --privileged", "1\n--privileged", "$(id)", "=1", "--cap-add=ALL", "a,b", '"')
# Options of ours whose value is no value: each is wrong usage, or a configuration that cannot be.
_OPTIONS = (
    "--memory=1g --privileged", "--cpus=nan", "--pids=-1", "--runtime=embedded --bind", "--runtime=../x",
    "--workspace-kind=bind,/", "--profile=full\n", "-e=A B=1", "-e=--privileged=1", "-e=A\nB=1", "--publish=1:2:3",
    "--unmask=../../etc/shadow\0",
)  # fmt: skip
_PRINT = """
import json, os, sys
values = sorted((name, value) for name, value in os.environ.items() if name.startswith("CLOISTER_VERIFY_"))
print(json.dumps([sys.argv[1:], [value for _, value in values]]))
"""
_NOT_FOUND = 127


def smuggling(found: Probe, world: World) -> None:
    """Words, values and options that look like those of the runtime; files and images that ask for more."""
    mark = f"{world.base}/executed"
    project = world.project("arguments", {".devcontainer/devcontainer.json": _devcontainer(mark)})
    where = ("run", "-C", project.workspace)
    script = ("python3", "-I", "-c", _PRINT)
    variables = [f"-e=CLOISTER_VERIFY_{number}={value}" for number, value in enumerate(_VALUES)]
    said = world.cloister(*where, *variables, "--", *script, *_WORDS)
    found.control("words and values arrive", succeeded, said.out.startswith("[["), said.said)
    found.attack("one of them does not arrive as it is", _altered, said)
    for command in _COMMANDS.get(world.runtime, _COMMANDS[""]):
        found.attack(f"the command {' '.join(command)!r}", _ran, world.cloister(*where, "--", *command))
    for option in _OPTIONS:
        found.attack(f"the option {option!r}", _accepted, world.cloister(*where, option, "--", "true"))
    found.attack("devcontainer.json: initializeCommand", _executed, mark)
    if world.runtime == "embedded":
        found.note("the embedded runtime uses no image, so none can ask for anything")
        return
    images.hostile(found, world, where)


def _devcontainer(mark: str) -> str:
    """All that it can ask for on the host, and of the engine."""
    return json.dumps(
        {
            "initializeCommand": f"touch {mark}",
            "privileged": True,
            "capAdd": ["ALL"],
            "securityOpt": ["seccomp=unconfined"],
            "runArgs": ["--privileged", "--network=host"],
            "mounts": ["source=/,target=/host,type=bind"],
            "containerUser": "root",
        }
    )


def _altered(done: Done) -> str:
    try:
        got = json.loads(done.out)
    except ValueError:
        return done.said
    if got == [list(_WORDS), list(_VALUES)]:
        raise RefusedError("they arrive as they are")
    return done.out[:160]


def _ran(done: Done) -> str:
    if done.code == _NOT_FOUND:
        raise RefusedError(done.said)
    return done.said


def _accepted(done: Done) -> str:
    if done.code and "Traceback" not in done.err:
        raise RefusedError(done.said)
    return done.said


def _executed(mark: str) -> str:
    if not os.path.exists(mark):
        raise RefusedError("it was not")
    return "it was"
