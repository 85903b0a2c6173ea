"""What is planted during a whole session, as the host finds it when the session has ended (FS-1).

Names that exist, or that stand at the workspace's root, are held while the sandbox lives: inside/planting.py tries
those. Here a sandbox also makes what is not held, deeper and in new repositories, and the session's end must take it.
"""

from __future__ import annotations

import json
import os
import stat

from cloister.verify.inside.talk import Probe, RefusedError
from cloister.verify.outside.names import succeeded
from cloister.verify.outside.world import World

_MARK = "attack-FS-1"
_SETTINGS = f"[core]\n\tfsmonitor = {_MARK}\n"
_HEAD = "ref: refs/heads/main\n"
_PLAIN = "[core]\n\trepositoryformatversion = 0\n"


def _repository(place: str, config: str = _PLAIN) -> dict[str, str]:
    return {
        f"{place}/HEAD": _HEAD,
        f"{place}/config": config,
        f"{place}/objects/.k": "",
        f"{place}/refs/.k": "",
    }


_PRESENT = {
    **_repository(".git", f"{_PLAIN}[include]\n\tpath = ../included.gitconfig\n"),
    "included.gitconfig": "[user]\n\tname = someone\n",
    ".gitmodules": '[submodule "sub"]\n\tpath = sub\n\turl = ./sub\n',
    **_repository(".git/modules/sub", f"{_PLAIN}\tworktree = ../../../sub\n"),
    "sub/.git": "gitdir: ../.git/modules/sub\n",
    **_repository("vendor/lib/.git"),
    ".vscode/settings.json": "{}\n",
    ".claude/settings.json": "{}\n",
    "part/.vscode/tasks.json": "{}\n",
    "part/.envrc": "true\n",
}
_HELD_SETTINGS = (
    ".git/config", ".git/config.worktree", "included.gitconfig", ".git/modules/sub/config", "vendor/lib/.git/config",
)  # fmt: skip
_HOOK_PLACES = (
    ".git/hooks", ".git/modules/sub/hooks", "vendor/lib/.git/hooks", "new/repo/.git/hooks", "new/bare/hooks",
    "node_modules/y/.git/hooks",
)  # fmt: skip
_PLACES = ("", "part/", "new/", "new/deep/er/")
_TOOLS = (
    ".vscode/tasks.json", ".vscode/settings.json", ".idea/workspace.xml", ".zed/tasks.json", ".fleet/run.json",
    ".devcontainer/devcontainer.json", ".devcontainer.json", ".envrc", ".direnv/x", ".mcp.json", ".husky/pre-commit",
    ".claude/settings.json", ".claude/settings.local.json", ".cursor/mcp.json", ".codex/config.toml",
    ".gemini/settings.json", ".continue/config.json", ".windsurf/x", ".roo/mcp.json", ".kiro/x", ".amazonq/x",
    ".opencode/x", "opencode.json", ".aider.conf.yml", "cloister.toml", "mise.toml", ".mise.toml", ".exrc",
    ".nvim.lua", ".dir-locals.el", "x.code-workspace", "x.sublime-project",
)  # fmt: skip
# Path → content; what is there already is overwritten. In the order in which the sandbox tries them.
_PLANTED = {
    **dict.fromkeys(_HELD_SETTINGS, _SETTINGS),
    **{
        f"{place}/{hook}": f"#!/bin/sh\n# {_MARK}\n"
        for place in _HOOK_PLACES
        for hook in ("post-checkout", "pre-commit")
    },
    **dict.fromkeys((".gitmodules", "new/.gitmodules"), f'[submodule "x"]\n\turl = {_MARK}\n'),
    **_repository("new/repo/.git", _SETTINGS),
    **_repository("node_modules/y/.git", _SETTINGS),
    **_repository("new/bare", _SETTINGS),
    **_repository("new/elsewhere", _SETTINGS),
    "new/pointed/.git": f"gitdir: ../elsewhere # {_MARK}\n",
    **{f"{place}{name}": f"{_MARK}\n" for place in _PLACES for name in _TOOLS},
}
_LINKS = {"new/linked/.vscode": "../payload", "part/.claude": "payload", "new/repo2/.git": "../bare"}
_RENAMED = (".git", ".vscode", "vendor", "part")  # away; then what was there is made anew, as above
_ORDINARY = "ordinary.txt"
_PLANT = """
import json, os, sys
plan = json.loads(sys.argv[1])
made = 0
def attempt(action, *arguments):
    global made
    try:
        action(*arguments)
        made += 1
    except OSError:
        pass
def write(path, text):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o755)
def replace(path, text):
    write(path + ".tmp", text)
    try:
        os.rename(path + ".tmp", path)
    finally:
        if os.path.exists(path + ".tmp"):
            os.unlink(path + ".tmp")
def link(path, target):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)
with open(plan["ordinary"], "w") as file:
    file.write("control-FS-1")
for path, text in plan["planted"].items():
    attempt(write, path, text)
    attempt(replace, path, text)
for path, target in plan["links"].items():
    attempt(link, path, target)
for path in plan["renamed"]:
    attempt(os.rename, path, path + "-away")
for path, text in plan["planted"].items():
    attempt(write, path, text)
print(made)
"""


def planted(found: Probe, world: World) -> None:
    """Let a sandbox plant all of it, and look at what stands once its session has ended."""
    project = world.project("planting", _PRESENT)
    plan = {"planted": _PLANTED, "links": _LINKS, "renamed": _RENAMED, "ordinary": _ORDINARY}
    script = ("python3", "-I", "-c", _PLANT, json.dumps(plan))
    ran = world.cloister("run", "-C", project.workspace, "--", *script, directory=project.workspace)
    found.control("the sandbox ran to its end", succeeded, ran.code == 0, ran.said)
    found.control("what nothing protects stays as it was written", _ordinary, project.workspace)
    found.control("some of it was made at first", succeeded, int(ran.out or 0) > 1, ran.out.strip())
    for path, text in _PRESENT.items():
        found.attack(f"change {path}", _changed, f"{project.workspace}/{path}", text)
    found.attack("leave something that tools of the host act on", _left, project.workspace)


def _ordinary(workspace: str) -> str:
    with open(f"{workspace}/{_ORDINARY}", encoding="utf-8") as file:
        text = file.read(100)
    if text != "control-FS-1":
        raise RefusedError(text)
    return text


def _changed(path: str, expected: str) -> str:
    if not os.path.lexists(path):
        return "it is gone"
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(1 << 16)
    if text == expected:
        raise RefusedError("as it was")
    return text


def _left(workspace: str) -> str:
    """RefusedError if nothing bears the mark, and no link has a name that tools act on."""
    left = []
    for directory, names, files in os.walk(workspace):
        for name in (*names, *files):
            path = f"{directory}/{name}"
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                left += [path] if name.startswith(".") else []
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    left += [path] if _MARK.encode() in file.read(1 << 16) else []
    if not left:
        raise RefusedError("nothing")
    return ", ".join(os.path.relpath(path, workspace) for path in left)
