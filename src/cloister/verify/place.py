"""The place of a verification: a workspace of its own with things to plant and to hide, and a canary beside it.

Rule 1: what the sandbox does happens in a throw-away project: no file of the user's is written or planted.
Rule 2: everything is removed at the end, and by the next verification if this one is killed: the directories' names
        carry the pid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from cloister.config import directories
from cloister.config.directories import Project
from cloister.errors import CloisterError
from cloister.sandbox import protect
from cloister.system import files
from cloister.values import dataclass
from cloister.verify.outside import world as worlds
from cloister.verify.outside.world import PREFIX

# Files that are there before the sandbox starts; what is below .git makes it a repository.
_PRESENT = {
    ".git/HEAD": "ref: refs/heads/main\n",
    ".git/config": "[core]\n\trepositoryformatversion = 0\n",
    ".git/hooks/.keep": "",
    ".git/objects/.keep": "",
    ".git/refs/.keep": "",
    ".vscode/settings.json": "{}\n",
}
PLANTED = (
    ".git/hooks/pre-commit", ".git/config", ".vscode/tasks.json", ".vscode/settings.json",
    ".idea/workspace.xml", ".devcontainer/devcontainer.json", ".devcontainer.json", ".envrc", ".mcp.json",
    ".claude/settings.json", ".cursor/mcp.json", ".codex/config.toml", ".husky/pre-commit", "cloister.toml",
)  # fmt: skip
MASKED = (".env", ".env.production", "id_rsa", ".aws/credentials")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where it happens. `project` is throw-away; `neighbour` is another directory of the home, with a canary in it."""

    project: Project
    neighbour: str
    file_canary: str
    secret: str
    placeholder: str
    memory_canary: str  # what the search of memory must find, or it shows nothing
    targets: tuple[str, ...] = PLANTED  # paths of the workspace that nothing may be planted at
    masked: tuple[str, ...] = MASKED

    @property
    def canary_file(self) -> str:
        return f"{self.neighbour}/canary"

    @property
    def secret_file(self) -> str:
        return f"{self.project.state}/credential"

    @property
    def ca_file(self) -> str:
        return f"{self.project.state}/ca.pem"

    def planted(self) -> dict[str, str | None]:
        """What stands now where something could be planted; None where there is nothing, or an empty mount point."""
        found: dict[str, str | None] = {}
        for path in self.targets:
            try:
                with open(f"{self.project.workspace}/{path}", encoding="utf-8", errors="replace") as file:
                    found[path] = file.read(1 << 16)
            except OSError:
                found[path] = None
        return found


@contextmanager
def made(
    environ: Mapping[str, str], home: str, *, protected: Sequence[str] = (), unmask: Sequence[str] = ()
) -> Iterator[Place]:
    """Make it; remove it at the end. What the user protects is there to be attacked, and what they unmask is not."""
    _remove_abandoned(home)
    unique = os.urandom(6).hex()
    workspace, neighbour = (f"{home}/{PREFIX}{os.getpid()}-{kind}" for kind in ("workspace", "neighbour"))
    state = directories.throwaway(workspace, environ, unique).state
    place = Place(
        project=Project(workspace=workspace, state=state),
        neighbour=neighbour,
        file_canary=f"cvf-{os.urandom(16).hex()}",
        secret=f"cvr-{os.urandom(16).hex()}",
        placeholder=f"cvp-{os.urandom(16).hex()}",
        memory_canary=f"cvm-{os.urandom(16).hex()}",
        targets=(*PLANTED, *(path for path in protected if path not in PLANTED)),
        masked=tuple(path for path in MASKED if not _is_unmasked(path, tuple(unmask))),
    )
    try:
        files.make_private_directory(state)
        files.write_atomic(place.secret_file, place.secret.encode())
        for directory in (workspace, neighbour):
            os.mkdir(directory, 0o755)
        _fill(workspace, _PRESENT)
        _fill(workspace, {"readme.txt": place.file_canary})
        _fill(workspace, dict.fromkeys(MASKED, f"TOKEN={place.file_canary}\n"))
        _fill(workspace, dict.fromkeys(place.targets[len(PLANTED) :], "yours\n"))
        _fill(neighbour, {"canary": place.file_canary})
        yield place
    finally:
        for directory in (workspace, neighbour, state):
            files.remove_tree(directory)


def _is_unmasked(path: str, unmask: tuple[str, ...]) -> bool:
    parts = path.split("/")
    return any(protect.matches("/".join(parts[:end]), unmask) for end in range(1, len(parts) + 1))


def _fill(root: str, contents: Mapping[str, str]) -> None:
    for name, content in contents.items():
        path = f"{root}/{name}"
        if os.path.isdir(path):
            continue  # the user protects a directory that holds things already
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)


def _remove_abandoned(home: str) -> None:
    for name in os.listdir(home):
        pid = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
            with suppress(OSError, CloisterError):
                worlds.remove(f"{home}/{name}")
