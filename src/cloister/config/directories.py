"""Where cloister keeps things: XDG base directories and the state of one project.

Rule 1: a project's directory name is safe whatever the workspace is called: a slug for people, and a hash of
        the real path, which decides. No slash, no leading dot or hyphen, never longer than 53 characters.
Rule 2: on the hot path: reads the environment it is given, touches no file, and imports nothing slow.
"""

from __future__ import annotations

import os

from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT_FILE_NAME = "cloister.toml"
_THROWAWAY = "audits"  # beside "projects"
_SLUG_LIMIT = 40
_SLUG_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The paths of one workspace. `state` is mode 0700 and outside the sandbox's view, but for `home`."""

    workspace: str
    state: str

    @property
    def throwaway(self) -> bool:
        """Whether all of it, the workspace included, goes with its one sandbox (`cloister audit`)."""
        return os.path.basename(os.path.dirname(self.state)) == _THROWAWAY

    @property
    def id(self) -> str:
        return os.path.basename(self.state)

    @property
    def shared(self) -> str:
        """Cloister's own state, of all projects."""
        return os.path.dirname(os.path.dirname(self.state))

    @property
    def file(self) -> str:
        """The project's own configuration, which an agent may have written."""
        return os.path.join(self.workspace, PROJECT_FILE_NAME)

    @property
    def adopted(self) -> str:
        return os.path.join(self.state, "adopted.toml")

    @property
    def plan(self) -> str:
        return os.path.join(self.state, "plan.json")

    @property
    def audit(self) -> str:
        return os.path.join(self.state, "audit", "audit.jsonl")

    @property
    def home(self) -> str:
        return os.path.join(self.state, "home")

    @property
    def runs(self) -> str:
        return os.path.join(self.state, "runs")

    @property
    def sandboxes(self) -> str:
        """What is kept of its named sandboxes (sandbox/catalogue.py)."""
        return os.path.join(self.state, "sandboxes")

    @property
    def quarantine(self) -> str:
        return os.path.join(self.state, "quarantine")


def all_runs(state_directory: str) -> list[str]:
    """The directories of the records of every project's sandboxes."""
    found = []
    for kind in ("projects", _THROWAWAY):
        try:
            names = sorted(os.listdir(f"{state_directory}/{kind}"))
        except FileNotFoundError:
            continue
        found += [f"{state_directory}/{kind}/{name}/runs" for name in names]
    return found


def throwaway(real_path: str, environ: Mapping[str, str], unique: str) -> Project:
    """The paths of a sandbox that works on a copy of `real_path`. `unique` is hexadecimal."""
    slug = project_id(real_path).rpartition("-")[0]
    state = os.path.join(state_directory(environ), _THROWAWAY, f"{slug}-{unique}")
    return Project(workspace=os.path.join(state, "workspace"), state=state)


def all_projects(state_directory: str) -> list[Project]:
    """Every project that has kept sandboxes. Their workspace is in what is kept: its path here is empty."""
    found = []
    for runs in all_runs(state_directory):
        place = Project(workspace="", state=os.path.dirname(runs))
        if os.path.isdir(place.sandboxes):
            found.append(place)
    return found


def project(workspace: str, environ: Mapping[str, str]) -> Project:
    """The paths of `workspace`, which need not exist."""
    real = os.path.realpath(workspace)
    state = os.path.join(state_directory(environ), "projects", project_id(real))
    return Project(workspace=real, state=state)


def audit_path(workspace: str, environ: Mapping[str, str] | None = None) -> str:
    """The audit log of `workspace`."""
    return project(workspace, os.environ if environ is None else environ).audit


def project_id(real_path: str) -> str:
    """`<slug of the last component>-<12 hex of the path's sha256>`."""
    name = os.path.basename(real_path).lower()
    slug = "".join(character if character in _SLUG_CHARACTERS else "-" for character in name[:_SLUG_LIMIT])
    return f"{slug.strip('-._') or 'project'}-{digest(os.fsencode(real_path))[:12]}"


def user_file(environ: Mapping[str, str]) -> str:
    """The user's own configuration."""
    return os.path.join(_base(environ, "XDG_CONFIG_HOME", ".config"), "cloister", "config.toml")


def state_directory(environ: Mapping[str, str]) -> str:
    """Where everything lies that outlives a sandbox."""
    return os.path.join(_base(environ, "XDG_STATE_HOME", ".local/state"), "cloister")


def home(environ: Mapping[str, str]) -> str:
    """The user's home; the password database's if HOME is not an absolute path."""
    value = environ.get("HOME", "")
    if value.startswith("/"):
        return value
    import pwd  # only without HOME

    return pwd.getpwuid(os.geteuid()).pw_dir


def _base(environ: Mapping[str, str], variable: str, default: str) -> str:
    """The XDG specification: a relative path counts as unset."""
    value = environ.get(variable, "")
    return value if value.startswith("/") else os.path.join(home(environ), default)


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    # hashlib loads OpenSSL (5 ms on the hot path); the interpreter's own module gives the same digest.
    try:
        from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]  # Python 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found,unused-ignore]  # Python 3.11
        except ImportError:
            from hashlib import sha256  # an interpreter built without its own
    return str(sha256(data).hexdigest())
