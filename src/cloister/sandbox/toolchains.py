"""Which of the user's own programs the sandbox sees: what PATH names, and what that needs, read-only.

Rule 1: a directory is bound only if it is a tool's own: never the home, never what holds or lies in a place
of credentials (FORBIDDEN), never what contains the workspace.
Rule 2: PATH inside names only what is visible inside.
Rule 3: a tool's credentials stay out: of ~/.cargo only bin, of ~/.bun and ~/.deno likewise.
Rule 4: a link in the workspace may be the agent's own: it brings known tools, and never what else it leads to.
"""

from __future__ import annotations

import os

from cloister.sandbox.workspace import contains
from cloister.values import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM = ("/usr", "/bin", "/sbin")  # what every sandbox sees

# Below the home: a PATH entry at or below the first name needs all of the second.
HOME_TOOLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (".pyenv", (".pyenv",)),
    (".rbenv", (".rbenv",)),
    (".nodenv", (".nodenv",)),
    (".goenv", (".goenv",)),
    (".jenv", (".jenv",)),
    (".plenv", (".plenv",)),
    (".rvm", (".rvm",)),
    (".nvm", (".nvm",)),
    (".fnm", (".fnm",)),
    (".local/share/fnm", (".local/share/fnm",)),
    (".volta", (".volta",)),
    (".asdf", (".asdf", ".tool-versions")),
    (".local/share/mise", (".local/share/mise",)),
    (".local/share/rtx", (".local/share/rtx",)),
    (".proto", (".proto",)),
    (".sdkman", (".sdkman",)),
    (".cargo/bin", (".cargo/bin", ".rustup")),
    (".rustup", (".rustup",)),
    (".bun/bin", (".bun/bin", ".bun/install/global")),
    (".deno/bin", (".deno/bin",)),
    (".local/share/pnpm", (".local/share/pnpm",)),
    (".npm-global", (".npm-global",)),
    (".npm-packages", (".npm-packages",)),
    (".yarn/bin", (".yarn/bin",)),
    (".local/bin", (".local/bin",)),
    (".local/share/uv", (".local/share/uv/python", ".local/share/uv/tools")),  # beside them: credentials
    (".local/pipx", (".local/pipx",)),
    (".local/go", (".local/go",)),
    ("go/bin", ("go/bin",)),
    ("sdk", ("sdk",)),
    (".dotnet", (".dotnet",)),
    (".ghcup", (".ghcup",)),
    (".cabal/bin", (".cabal/bin",)),
    (".opam", (".opam",)),
    (".elan", (".elan",)),
    (".juliaup", (".juliaup", ".julia/juliaup")),
    (".foundry/bin", (".foundry/bin",)),
    (".pixi", (".pixi",)),
    (".poetry", (".poetry",)),
    (".krew/bin", (".krew/bin",)),
    (".nix-profile", (".nix-profile",)),
    (".linuxbrew", (".linuxbrew",)),
    ("miniconda3", ("miniconda3",)),
    ("anaconda3", ("anaconda3",)),
    ("miniforge3", ("miniforge3",)),
    ("mambaforge", ("mambaforge",)),
    ("bin", ("bin",)),
)

# Outside the home, by first directory. /nix/var holds the profiles that links lead through.
OTHER_TOOLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("/nix", ("/nix/store", "/nix/var/nix/profiles")),
    ("/home/linuxbrew/.linuxbrew", ("/home/linuxbrew/.linuxbrew",)),
)

# Variables that say where a tool lives. They pass if the place is visible, and move a root of HOME_TOOLS.
ROOT_VARIABLES = (
    "PYENV_ROOT", "RBENV_ROOT", "NODENV_ROOT", "GOENV_ROOT", "NVM_DIR", "NVM_BIN", "FNM_DIR",
    "VOLTA_HOME", "ASDF_DIR", "ASDF_DATA_DIR", "MISE_DATA_DIR", "SDKMAN_DIR", "RUSTUP_HOME", "JAVA_HOME",
    "GOROOT", "PNPM_HOME", "DOTNET_ROOT", "HOMEBREW_PREFIX", "CONDA_PREFIX", "VIRTUAL_ENV", "GRADLE_HOME",
    "MAVEN_HOME", "ANDROID_HOME", "FLUTTER_ROOT",
)  # fmt: skip

# Below the home: never bound, nor anything in them, nor anything that contains one.
FORBIDDEN = (
    ".ssh", ".aws", ".azure", ".gnupg", ".config", ".kube", ".docker", ".oci", ".password-store", ".pki",
    ".mozilla", ".thunderbird", ".terraform.d", ".netrc", ".npmrc", ".pypirc", ".git-credentials",
    ".vault-token", ".local/state", ".local/share/keyrings", ".local/share/cloister", ".cache/cloister",
    ".claude", ".codex", ".gemini", ".cursor", ".cargo/credentials", ".cargo/credentials.toml",
    ".m2/settings.xml", ".gradle", ".bash_history", ".local/share/Trash", "snap", ".var",
)  # fmt: skip

# Outside the home: trees that hold other people's things or the system's state, so no tools.
FORBIDDEN_TREES = (
    "/root", "/home", "/mnt", "/media", "/srv", "/tmp", "/var", "/run", "/proc", "/sys",  # noqa: S108
    "/dev", "/etc", "/boot", "/snap", "/lost+found",
)  # fmt: skip

MAX_LINKS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchains:
    """Host paths to bind read-only at their own place, PATH inside, and the variables that name tools."""

    binds: tuple[str, ...]
    path: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]
    has_java: bool


def find(path: tuple[str, ...], *, home: str, workspace: str, environ: Mapping[str, str]) -> Toolchains:
    """Look at the directories of PATH and choose what to bind."""
    search = _Search(home, workspace, environ)
    inside: list[str] = []
    for entry in path:
        real = os.path.realpath(entry)
        if real not in inside and os.path.isdir(real) and search.show(entry, real):
            inside.append(real)
    for name in ("python", "python3"):
        for environment in (".venv", "venv"):
            search.show_link(f"{workspace}/{environment}/bin/{name}")
    variables = []
    for name in ROOT_VARIABLES:
        value = environ.get(name, "")
        if value.startswith("/") and search.is_visible(os.path.realpath(value)):
            variables.append((name, value))
    for default in ("/usr/local/bin", "/usr/bin"):
        if default not in inside:
            inside.append(default)
    java = any(os.access(f"{directory}/java", os.X_OK) for directory in inside)
    return Toolchains(binds=search.outermost(), path=tuple(inside), variables=tuple(variables), has_java=java)


class _Search:
    """Collects what to bind while PATH is walked."""

    def __init__(self, home: str, workspace: str, environ: Mapping[str, str]) -> None:
        self._home = home
        self._workspace = workspace
        self._forbidden = tuple(f"{home}/{name}" for name in FORBIDDEN)
        self._moved = tuple(
            os.path.realpath(environ[name])
            for name in ROOT_VARIABLES
            if environ.get(name, "").startswith("/")
            and name not in {"VIRTUAL_ENV", "NVM_BIN", "PNPM_HOME"}
            and not follows_link_in(workspace, environ[name])
        )
        self._bound: list[str] = []

    def is_visible(self, real: str) -> bool:
        """Tell whether the sandbox sees `real` already."""
        roots = (*SYSTEM, self._workspace, *self._bound)
        return any(contains(root, real) for root in roots)

    def show(self, entry: str, directory: str) -> bool:
        """Bind what a PATH entry, which leads to `directory`, needs; tell whether it is visible then."""
        if self.is_visible(directory):
            return True
        if follows_link_in(self._workspace, entry):
            self._bind(tuple(self._known_roots(directory)))
        else:
            self._bind(self._roots(directory))
        if not self.is_visible(directory):
            return False
        self._follow(directory)
        return True

    def show_link(self, path: str) -> None:
        """Bind what a symbolic link to a program needs, if that is known to be safe."""
        if not os.path.islink(path):
            return
        target = os.path.realpath(path)
        if self.is_visible(target) or not os.path.isfile(target):
            return
        known = tuple(self._known_roots(target))
        if not known and not follows_link_in(self._workspace, path):
            known = tuple(self._link_roots(target))
        self._bind(known)

    def outermost(self) -> tuple[str, ...]:
        """List what was bound, without what lies in another."""
        return tuple(
            sorted(
                one
                for one in self._bound
                if not any(one != other and contains(other, one) for other in self._bound)
            )
        )

    def _bind(self, roots: tuple[str, ...]) -> None:
        for root in roots:
            if self._is_safe(root) and not self.is_visible(root) and os.path.exists(root):
                self._bound.append(root)

    def _is_safe(self, root: str) -> bool:
        if contains(root, self._home) or contains(root, self._workspace):
            return False
        if contains(self._home, root):
            return not any(contains(root, place) or contains(place, root) for place in self._forbidden)
        if any(contains(known, root) for known, _ in OTHER_TOOLS):
            return True
        return not any(contains(tree, root) or contains(root, tree) for tree in FORBIDDEN_TREES)

    def _roots(self, directory: str) -> tuple[str, ...]:
        known = tuple(self._known_roots(directory))
        if known:
            return known
        parent = os.path.dirname(directory)
        if os.path.exists(f"{parent}/pyvenv.cfg"):  # a virtual environment works only as a whole
            self.show_link(f"{directory}/python")
            return (parent,)
        return (directory,)

    def _known_roots(self, place: str) -> Iterator[str]:
        for moved in self._moved:
            if contains(moved, place):
                yield moved
        for prefix, roots in HOME_TOOLS:
            if contains(f"{self._home}/{prefix}", place):
                yield from (os.path.realpath(f"{self._home}/{root}") for root in roots)
                return
        for prefix, roots in OTHER_TOOLS:
            if contains(prefix, place):
                yield from roots
                return
        if place.startswith("/opt/"):
            yield "/".join(place.split("/")[:3])

    def _link_roots(self, target: str) -> Iterator[str]:
        """Name what a program behind a link in ~/.local/bin needs: its own tree in ~/.local, or itself."""
        if target.startswith((f"{self._home}/.local/share/", f"{self._home}/.local/lib/")):
            yield "/".join(target.split("/")[: self._home.count("/") + 4])
        else:
            yield target

    def _follow(self, directory: str) -> None:
        links = 0
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links += 1
                    if links > MAX_LINKS:
                        return
                    self.show_link(entry.path)


def follows_link_in(workspace: str, path: str) -> bool:
    """Tell whether a symbolic link that lies in `workspace`, a real path, is followed on the way to `path`."""
    reached, pending, links = "", path.split("/")[::-1], 0
    while pending:
        part = pending.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            reached = os.path.dirname(reached).rstrip("/")
            continue
        try:
            target = os.readlink(f"{reached}/{part}")
        except OSError:  # no link
            reached = f"{reached}/{part}"
            continue
        links += 1
        if links > MAX_LINKS or contains(workspace, reached or "/"):
            return True
        if target.startswith("/"):
            reached = ""
        pending += target.split("/")[::-1]
    return False
