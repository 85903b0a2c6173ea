"""What a place means that a file was written to: where packages belong, or where code waits to be run by others.

Rule 1: no I/O; paths are `~/…`, `./…` or absolute.
Rule 2: what is not known to be a package's own place is told.
"""

from __future__ import annotations

import re
from enum import Enum
from itertools import pairwise

from cloister.sandbox.protect import SKIPPED, is_protected


class Place(Enum):
    """Where a written file lies."""

    PACKAGES = "packages"  # installed packages, build results, caches
    MANIFEST = "manifest"  # the project's own lists of packages
    LOGIN = "start-up"  # run by a shell, a session or a timer
    HOOK = "hook"  # run by git, an editor or an agent on the host
    CREDENTIALS = "credentials"
    OTHER = "other"


# Names of directories, anywhere: nothing below them is looked at.
PACKAGE_DIRECTORIES = SKIPPED | {
    "site-packages", "dist-packages", "vendor", "deps", "__pypackages__", "Pods", ".bundle", "_build", "build", "dist",
    ".pnpm", ".pixi",
}  # fmt: skip
_PACKAGE_SUFFIXES = (".egg-info", ".dist-info", ".egg")
# Below the home.
_CACHES = (
    ".npm", ".cache", ".cargo/registry", ".cargo/git", ".cargo/.package-cache", ".cargo/.package-cache-mutate",
    ".cargo/.global-cache", ".rustup", "go/pkg", ".local/share/pnpm", ".local/share/uv", ".local/state/pnpm",
    ".yarn", ".bun/install", ".bun/bin", ".gem", ".local/share/gem", ".hex", ".mix", ".node-gyp", ".gradle",
    ".m2", ".composer", ".config/go", ".local/share/virtualenv", ".config/yarn", ".config/configstore",
    ".local/share/virtualenvs", ".virtualenvs", ".npm-global", ".volta",
)  # fmt: skip
_MANIFESTS = frozenset(
    {
        "package.json", "package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "pnpm-workspace.yaml",
        "yarn.lock", "bun.lock", "bun.lockb", "pyproject.toml", "poetry.lock", "uv.lock", "pdm.lock", "Pipfile",
        "Pipfile.lock", "requirements.txt", "Cargo.toml", "Cargo.lock", "go.mod", "go.sum", "go.work",
        "go.work.sum", "mix.exs", "mix.lock", "Gemfile", "Gemfile.lock", "composer.json", "composer.lock",
        ".pnp.cjs", ".pnp.loader.mjs", ".npmrc",
    }
)  # fmt: skip
_LOGIN = re.compile(
    r"""~/(?:
        \.(?:bash_profile|bash_login|bash_logout|bashrc|bash_aliases|profile|zshrc|zprofile|zshenv|zlogin|kshrc|cshrc|tcshrc
            |inputrc|xprofile|xinitrc|xsession|xsessionrc|pam_environment|screenrc|tmux\.conf|vimrc|exrc|gdbinit)
        | \.config/(?:autostart|systemd|fish|environment\.d|nushell|plasma-workspace|tmux|nvim)/.*
        | \.local/share/(?:applications|systemd|dbus-1)/.*
        | \.(?:pythonrc|pythonstartup)(?:\.py)?
        | \.local/bin/(?:bash|sh|zsh|sudo|su|ls|cat|git|ssh|scp|curl|wget|docker|kubectl|gh|code|claude|codex)
    )$""",
    re.VERBOSE,
)
_HOOK = re.compile(
    r"""(?:~/\.(?:gitconfig|config/git/.*|vscode.*/.*|cursor/.*|claude/(?!\.credentials).*|claude\.json|codex/.*|gemini/.*)
        | \./(?:.*/)?(?:\.git/(?:hooks/.*|config|config\.worktree|commondir|info/attributes)
            |\.github/workflows/.*|\.gitlab-ci\.yml|\.gitattributes
            |CLAUDE\.md|AGENTS\.md|\.cursorrules)
    )$""",
    re.VERBOSE,
)
_CREDENTIALS = re.compile(
    r"~/(?:\.ssh|\.aws|\.gnupg|\.kube|\.docker|\.azure|\.config/(?:gh|gcloud)|\.netrc|\.npmrc|\.pypirc|\.git-credentials"
    r"|\.cargo/credentials.*|\.claude/\.credentials.*)(?:/.*)?$"
)
# Where programs are put that are to be run at once and not found later; an installer's own are no sign.
_FLEETING = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/")  # noqa: S108
_INSTALLERS = re.compile(
    r"/tmp/(?:pip-|uv-|\.tmp|cargo-install|npm-|node-gyp|go-build|xfs-|bunx-|easy_install"  # noqa: S108
    r"|tmp[a-z0-9_]{8}/(?:bin|venv|lib|\.venv)/)"
)


def place(path: str) -> Place:
    """What a written file's path says."""
    parts = path.split("/")
    inner = "/".join(parts[1:])
    if _LOGIN.fullmatch(path):
        return Place.LOGIN
    if _HOOK.fullmatch(path) or _is_protected(parts):
        return Place.HOOK
    if _CREDENTIALS.fullmatch(path):
        return Place.CREDENTIALS
    if ".git" in parts:
        return Place.PACKAGES  # what git itself writes, such as its index
    if any(is_package_directory(part) for part in parts[:-1]):
        return Place.PACKAGES
    if parts[0] == "~" and (is_cache(inner) or inner.startswith(".local/bin/")):
        return Place.PACKAGES
    if parts[0] == "." and parts[-1] in _MANIFESTS:
        return Place.MANIFEST
    return Place.OTHER


def is_package_directory(name: str) -> bool:
    """Whether packages lie below every directory of this name."""
    return name in PACKAGE_DIRECTORIES or name.endswith(_PACKAGE_SUFFIXES)


def is_cache(below_home: str) -> bool:
    """Whether a path below the home belongs to a package manager."""
    return any(below_home == cache or below_home.startswith(f"{cache}/") for cache in _CACHES) or (
        re.fullmatch(r"\.local/(?:share/man|include|etc)/.*|\.config/(?:pip|uv|pnpm)/.*", below_home)
        is not None
    )


def odd_program(path: str) -> str:
    """Why it is odd to start a program from this path; empty if it is not."""
    if "/memfd:" in path or path.startswith(("/proc/", "/dev/fd/")):
        return "a program that is in memory only"
    if path.startswith(_FLEETING) and not _INSTALLERS.match(path):
        return "a program in a directory for temporary files"
    return ""


def _is_protected(parts: list[str]) -> bool:
    if parts[0] != ".":
        return False
    return any(
        is_protected(part, parent=parent, directory=number < len(parts))
        for number, (parent, part) in enumerate(pairwise(parts), 2)
    )
