"""cloister's own use of the host's git, where a sandbox has written the repository (FS-5).

The control is plain git in a repository that the host has written, with the same settings: it executes them. Plain git
never runs in what the sandbox has written.
"""

from __future__ import annotations

import json
import os
import shlex
import sys

from cloister.config.directories import Project
from cloister.system import proc
from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import World
from cloister.workspaces import git

_GIT_S = 30
# Settings and files that make git execute something in `status`, `diff`, `log`, `add` or a fetch. MARK: what they run.
_CONFIG = """
[core]
\tfsmonitor = "MARK fsmonitor; false"
\thooksPath = HOOKS
\tsshCommand = "MARK ssh"
\tpager = "MARK pager"
\teditor = "MARK editor"
[filter "x"]
\tclean = "MARK clean; cat"
\tsmudge = "MARK smudge; cat"
[diff]
\texternal = "MARK external"
[diff "x"]
\tcommand = "MARK driver"
\ttextconv = "MARK textconv; cat"
[log]
\tshowSignature = true
[credential]
\thelper = "!MARK credential"
[uploadpack]
\tpackObjectsHook = "MARK pack"
[include]
\tpath = INCLUDED
[alias]
\tdiff = "!MARK alias"
\tstatus = "!MARK alias"
"""
_INCLUDED = '[core]\n\tfsmonitor = "MARK included; false"\n'
_ATTRIBUTES = "* filter=x diff=x merge=x\n"
_HOOKS = (
    "post-index-change", "reference-transaction", "post-checkout", "pre-commit", "pre-auto-gc", "post-merge",
    "pre-receive", "update", "post-update",
)  # fmt: skip
# Plants files below .git and commits one more, without git: the sandbox's might be another, or none.
_PLANT = """
import hashlib, json, os, sys, zlib
work, files = sys.argv[1], json.loads(sys.argv[2])
place = work + "/.git"
with open(place + "/config") as file:
    old = file.read()
for name, text in files.items():
    path = os.path.normpath(os.path.join(place, name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    text = text.replace("HOOKS", place + "/hooks").replace("INCLUDED", place + "/included")
    with open(path, "w") as file:
        file.write(old + text if name == "config" else text)
    os.chmod(path, 0o755)

def stored(kind, body):
    data = b"%s %d\\0" % (kind, len(body)) + body
    name = hashlib.sha1(data).hexdigest()
    os.makedirs(f"{place}/objects/{name[:2]}", exist_ok=True)
    with open(f"{place}/objects/{name[:2]}/{name[2:]}", "wb") as file:
        file.write(zlib.compress(data))
    return name

with open(place + "/HEAD") as file:
    branch = file.read().strip().removeprefix("ref: ")
with open(f"{place}/{branch}") as file:
    parent = file.read().strip()
blob = stored(b"blob", b"two\\n")
tree = stored(b"tree", b"100644 file\\0" + bytes.fromhex(blob))
who = "verify <verify@localhost> 1700000000 +0000"
commit = stored(b"commit", f"tree {tree}\\nparent {parent}\\nauthor {who}\\ncommitter {who}\\n\\ntwo\\n".encode())
with open(f"{place}/{branch}", "w") as file:
    file.write(commit + "\\n")
with open(work + "/file", "a") as file:
    file.write("changed\\n")
print("planted")
"""
_COMMANDS = ("diff", "apply")
_KINDS = ("clone", "volume")


def git_of_the_host(found: Probe, world: World) -> None:
    """Let a sandbox plant what git executes, and use the commands of ours that run git there."""
    program = git.program()
    if program is None:
        found.missing = "git is not installed on this host, so none of cloister's commands runs it"
        return
    control_mark, mark = f"{world.base}/executed-by-plain-git", f"{world.base}/executed"
    control = _repository(program, world, "plain")
    _run(world, [sys.executable, "-I", "-c", _PLANT, control.workspace, _planted(control_mark)])
    found.control("plain git executes what is planted", _plain, program, world, control, control_mark)
    for kind in _KINDS:
        project = _repository(program, world, f"git-{kind}")
        script = ("python3", "-I", "-c", _PLANT, project.workspace, _planted(mark))
        ran = world.cloister("run", f"--workspace-kind={kind}", "-C", project.workspace, "--", *script)
        found.control(f"a sandbox plants it in its {kind}", succeeded, "planted" in ran.out, ran.said)
        for command in _COMMANDS:
            found.attack(f"cloister {command} ({kind})", _executes, world, project, command, mark)


def _repository(program: str, world: World, name: str) -> Project:
    """A repository of the host's own making, with one commit."""
    project = world.project(name, {"file": "one\n"})
    for command in (("init", "--quiet"), ("add", "file"), ("commit", "--quiet", "--message=one")):
        _run(world, [program, "-C", project.workspace, *command])
    return project


def _run(world: World, argv: list[str]) -> None:
    """A program of the host, on files of the host's."""
    empty = f"{world.base}/empty"
    os.makedirs(empty, exist_ok=True)
    who = {f"GIT_{one}_NAME": "verify" for one in ("AUTHOR", "COMMITTER")}
    where = {f"GIT_{one}_EMAIL": "verify@localhost" for one in ("AUTHOR", "COMMITTER")}
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": empty, "GIT_CONFIG_NOSYSTEM": "1"}
    proc.run(argv, environment={**path, **who, **where}, timeout_s=_GIT_S)


def _planted(mark: str) -> str:
    command = f"touch {shlex.quote(mark)}; :"
    hooks = {f"hooks/{name}": f"#!/bin/sh\n{command} {name}\n" for name in _HOOKS}
    texts = {"config": _CONFIG, "included": _INCLUDED, "info/attributes": _ATTRIBUTES, **hooks}
    texts |= {"../.gitattributes": _ATTRIBUTES}
    return json.dumps({name: text.replace("MARK", command) for name, text in texts.items()})


def _plain(program: str, world: World, control: Project, mark: str) -> str:
    _run(world, [program, "-C", control.workspace, "status"])
    if not os.path.exists(mark):
        raise RefusedError("it did not")
    return "it did"


def _executes(world: World, project: Project, command: str, mark: str) -> str:
    """RefusedError if nothing of it was executed by a command that did its work."""
    more = ("--yes",) if command == "apply" else ()
    done = world.cloister(command, "main", "-C", project.workspace, *more)
    if os.path.exists(mark):
        os.unlink(mark)
        return f"executed; {done.said}"
    if done.code not in (0, 125) or "Traceback" in done.err:
        return done.said
    raise RefusedError(done.said)
