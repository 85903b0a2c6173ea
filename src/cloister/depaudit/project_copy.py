"""Copy a project for dependency code to work on: what git tracks or would track, without secrets.

Rule 1: what is chosen and how it is copied is that of a workspace of its own (workspaces/seed.py, tree.py): an agent
        may have written the project, so no link is followed, and git runs nothing of the repository's.
Rule 2: bounded.
Rule 3: of package managers' settings only the tokens stay out: without them, the canaries of the environment would be
        sent to the registries that `${NPM_TOKEN}` is written for.
Rule 4: the copy's .git is a new, empty repository: its hooks and settings are there to be attacked.
"""

from __future__ import annotations

import os

from cloister.errors import WorkspaceError
from cloister.sandbox import contents, scan
from cloister.system import files
from cloister.workspaces import seed, tree

FILES_LIMIT = 200_000
BYTES_LIMIT = 4 << 30
_TOKENS = {
    ".npmrc": (b"_auth", b"_password", b"username", b"certfile", b"keyfile"),
    ".yarnrc.yml": (b"npmauthtoken", b"npmauthident"),
}
_REPOSITORY = {
    "HEAD": "ref: refs/heads/main\n",
    "config": "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n",
    "hooks/pre-commit.sample": "#!/bin/sh\n# An example of a hook.\nexit 0\n",
}


def copy(source: str, target: str, *, home: str) -> tuple[str, ...]:
    """Copy the project `source` to the new directory `target`; what should be known of it, as sentences.

    WorkspaceError if it is too large.
    """
    chosen = seed.select(source, scan.scan(source, home=home), home, seed.repository_of(source))
    size_bytes = sum(entry.size for entry in chosen.entries)
    if len(chosen.entries) > FILES_LIMIT or size_bytes > BYTES_LIMIT:
        raise WorkspaceError(
            "the project is too large to be copied for an audit",
            details=f"it has {len(chosen.entries)} files and {size_bytes >> 20} MiB without what git ignores; "
            f"at most {FILES_LIMIT} and {BYTES_LIMIT >> 20} MiB are copied",
            resolution="let git ignore what is not source, or audit in a smaller directory with -C DIR",
        )
    os.mkdir(target, 0o755)
    failures = tree.copy(source, target, chosen.entries)
    for path in {*(entry.path for entry in chosen.entries if entry.kind == "file"), *chosen.masked}:
        if os.path.basename(path) in _TOKENS:
            _write_without_tokens(source, target, path)
    _repository(f"{target}/.git")
    masked = [path for path in chosen.masked if os.path.basename(path) not in _TOKENS]
    if masked:
        shown = ", ".join(masked[: seed.SHOWN_NAMES]) + (", …" if len(masked) > seed.SHOWN_NAMES else "")
        failures.append(f"not copied, because they look like secrets: {shown}")
    return tuple(failures)


def _write_without_tokens(source: str, target: str, path: str) -> None:
    words = _TOKENS[os.path.basename(path)]
    lines = tree.read(source, path, contents.START_BYTES).splitlines(keepends=True)
    content = b"".join(line for line in lines if not any(word in line.lower() for word in words))
    with tree.parent_of(target, path, make=True) as (directory, name):
        files.remove(f"{target}/{path}")
        descriptor = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory
        )
        with open(descriptor, "wb") as file:
            file.write(content)


def _repository(directory: str) -> None:
    """What `git init` would make, without running it."""
    for name in ("hooks", "objects", "refs/heads", "info"):
        os.makedirs(f"{directory}/{name}")
    for name, text in _REPOSITORY.items():
        with open(f"{directory}/{name}", "w", encoding="ascii") as file:
            file.write(text)
