"""Where a sample's sandbox has its project: made, looked for, and removed with all that cloister keeps of it.

<tmp>/cloister-inspect-…/project   the workspace, or what it is seeded from; cloister.toml, if the task has one
<tmp>/cloister-inspect-…/config    in the place of the user's configuration
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping

from cloister.config import directories, trust
from cloister.sandbox import catalogue
from cloister.system import files
from cloister.values import dataclass

_PREFIX = "cloister-inspect-"
_CONTAINERS = "containers"  # podman's own settings are no configuration of cloister's


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One sample's directories. Removing it is idempotent."""

    base: str

    @property
    def workspace(self) -> str:
        return os.path.join(self.base, "project")

    @property
    def name(self) -> str:
        """What `inspect sandbox cleanup cloister NAME` takes."""
        return os.path.basename(self.base)

    def environment(self) -> dict[str, str]:
        """What is different for a `cloister` that works here."""
        return {"XDG_CONFIG_HOME": os.path.join(self.base, "config")}

    def project(self) -> directories.Project:
        return directories.project(self.workspace, {**os.environ, **self.environment()})

    def lives(self) -> bool:
        """Whether its sandbox runs."""
        return catalogue.live(self.project(), catalogue.DEFAULT_NAME) is not None

    def remove(self) -> None:
        """All of it, and what is recorded of its sandbox, which has ended."""
        files.remove_tree(self.project().state)
        files.remove_tree(self.base)


def make(settings_text: str | None, environ: Mapping[str, str]) -> Place:
    """A new one. The task's cloister.toml is adopted: whoever runs a task runs its code on the host anyway."""
    place = Place(base=os.path.realpath(tempfile.mkdtemp(prefix=_PREFIX)))
    os.mkdir(place.workspace)
    config = place.environment()["XDG_CONFIG_HOME"]
    os.mkdir(config)
    theirs = os.path.join(os.path.dirname(os.path.dirname(directories.user_file(environ))), _CONTAINERS)
    if os.path.isdir(theirs):
        os.symlink(theirs, os.path.join(config, _CONTAINERS))
    if settings_text is not None:
        project = place.project()
        files.write_atomic(project.file, settings_text.encode(), mode=0o644)
        files.make_private_directory(project.state)
        trust.adopt(project, settings_text)
    return place


def left() -> Iterator[Place]:
    """Those of which cloister has a record: of evaluations that run, or were killed."""
    temporary = os.path.realpath(tempfile.gettempdir())
    for project in directories.all_projects(directories.state_directory(os.environ)):
        for kept in catalogue.all_of(project):
            base = os.path.dirname(kept.workspace)
            if os.path.dirname(base) == temporary and os.path.basename(base).startswith(_PREFIX):
                yield Place(base=base)
