"""What in a workspace the sandbox must not write, and what it must not read: the names, and the verdicts.

Rule 1: what the host executes or obeys on its own (an editor opening the folder, git in any command, direnv
at `cd`, an agent at start) is read-only; what a person runs knowingly (Makefile, package.json) is not.
Rule 2: at the workspace's root, also when it does not exist yet (PLACEHOLDERS): what editors and agents obey that may
run meanwhile. What else is made newly is swept at the end. docs/adr/0030-protected-paths.md says why each is here.
Rule 3: what is named like a secret is masked, unless `unmask` names it. A mask also protects.
Rule 4: no I/O. The files are looked at in scan.py.
"""

from __future__ import annotations

from cloister.values import dataclass

# Directories that editors and agents take commands from, read-only wherever they are.
DIRECTORIES = frozenset(
    {
        ".vscode", ".idea", ".fleet", ".zed", ".devcontainer", ".claude", ".cursor", ".windsurf",
        ".codex", ".gemini", ".continue", ".husky", ".direnv", ".opencode", ".roo", ".amazonq", ".kiro",
        ".qwen", ".nova", ".helix", ".trae", ".junie", ".kilocode", ".factory", ".mise",
    }
)  # fmt: skip
FILES = frozenset(
    {
        ".devcontainer.json", ".envrc", ".mcp.json", ".aider.conf.yml", "cloister.toml", ".gitmodules",
        "opencode.json", "opencode.jsonc", ".opencode.json", ".opencode.jsonc", ".exrc", ".vimrc", ".gvimrc",
        ".nvimrc", ".nvim.lua", ".lvimrc", ".dir-locals.el", ".dir-locals-2.el", ".miserc.toml", ".autoenv",
        "crush.json", ".crush.json", "crushrc", ".crushrc",
    }
)  # fmt: skip
# Of mise, with and without the name of an environment: mise.toml, .mise.local.toml, mise.ci.toml.
_MISE, _TOML = ("mise.", ".mise."), ".toml"
# What counts only in a directory of a certain name; elsewhere such a name says nothing.
PATHS = frozenset(
    {
        (".github", "hooks"), (".clinerules", "hooks"), (".vim", "coc-settings.json"), (".config", "mise"),
        ("mise", "config.toml"), ("mise", "config.local.toml"), ("mise", "conf.d"),
    }
)  # fmt: skip
SUFFIXES = (".code-workspace", ".sublime-project")

# Names that get an empty directory as a mount point at the workspace's root while a sandbox lives; also where
# programs expect a file: git does not show an empty directory, and programs take it for "nothing there", or
# warn. Not .gitmodules: git refuses to switch to branches that have the file.
PLACEHOLDERS = (
    ".git", ".vscode", ".idea", ".fleet", ".zed", ".devcontainer", ".devcontainer.json", ".envrc",
    ".direnv", ".mcp.json", ".claude", ".cursor", ".windsurf", ".codex", ".gemini", ".continue",
    ".opencode", ".aider.conf.yml", ".husky", ".helix", ".roo", ".kilocode", "cloister.toml",
)  # fmt: skip

# A file in a git directory that redirects git to another configuration; "." is what its absence means.
COMMON_DIRECTORY = b".\n"

# What decides where a repository's settings and hooks are. In a known one they are held, or swept when new.
GIT_FILES = ("config", "config.worktree", "commondir", "hooks")

# Not walked before a start unless it is a repository itself: made by tools, large, not where a person or an editor
# starts git. After a session, git's directories are looked for in them too (tool_repositories.py).
SKIPPED = frozenset(
    {
        "node_modules", ".venv", "venv", "target", "__pycache__", ".tox", ".nox", ".mypy_cache",
        ".ruff_cache", ".pytest_cache", ".gradle", ".next", ".nuxt", ".terraform", "bower_components",
        ".hypothesis", ".cache", ".pnpm-store", ".yarn", ".eggs", ".parcel-cache", ".svelte-kit",
        ".turbo", "elm-stuff", "_build",
    }
)  # fmt: skip

HARMLESS_ENV = frozenset(
    {"example", "sample", "template", "tmpl", "dist", "test", "defaults", "schema", "ci"}
)
SECRET_FILES = frozenset(
    {
        ".netrc", "_netrc", ".pypirc", ".git-credentials", ".pgpass", ".my.cnf", ".htpasswd",
        ".vault-token", ".dockercfg", ".envrc", "terraform.tfstate", "terraform.tfstate.backup",
        "credentials.tfrc.json", ".terraformrc", "terraform.tfvars", ".boto", ".s3cfg", ".age-key",
        "keys.txt.age", "master.key", ".credentials.json", "kubeconfig", "id_rsa", "id_dsa", "id_ecdsa",
        "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk", ".secrets", ".dev.vars",
    }
)  # fmt: skip
SECRET_SUFFIXES = (
    ".p12",
    ".pfx",
    ".jks",
    ".kdbx",
    ".keystore",
    ".ppk",
    ".tfstate",
    ".auto.tfvars",
    ".mobileprovision",
)
SECRET_DIRECTORIES = frozenset({".ssh", ".aws", ".gnupg", ".kube", ".azure", ".gcloud", ".docker"})
KEY_SUFFIXES = (".pem", ".key", ".asc", ".gpg")
NPM_SECRETS = ("_authtoken", "_auth=", "_password", "_auth =")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A mount point to create. `content` None: an empty directory, else a file with these bytes."""

    path: str
    content: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What a scan decided, in absolute paths. `nested`: every protected thing there was, for the sweep.

    A symbolic link is in `nested` as `link()` names it. `beside`: directories outside of the workspace that are
    writable as well, but for what is named here.
    """

    workspace: str
    beside: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    redacted: tuple[tuple[str, bytes], ...] = ()
    masked_files: tuple[str, ...] = ()
    masked_directories: tuple[str, ...] = ()
    placeholders: tuple[Placeholder, ...] = ()
    nested: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    unwalked: tuple[str, ...] = ()


def is_protected(name: str, *, parent: str, directory: bool) -> bool:
    """Tell whether the host acts on a file or directory of this name, in a directory named `parent`.

    A symbolic link is no directory here, whatever it leads to. `.git` is looked at apart.
    """
    if name in DIRECTORIES or (parent, name) in PATHS:
        return True
    if directory:
        return False
    return name in FILES or name.endswith(SUFFIXES) or (name.startswith(_MISE) and name.endswith(_TOML))


def link(path: str, target: str) -> str:
    """Name a symbolic link in `Protection.nested`: another target is another link, and a directory is none."""
    return f"{path}\0{target}"


def is_git_directory(names: frozenset[str] | set[str]) -> bool:
    """Tell from its names whether git takes a directory for a repository (setup.c, is_git_directory)."""
    return "HEAD" in names and ("commondir" in names or ("objects" in names and "refs" in names))


def is_secret_name(name: str) -> bool:
    """Tell whether a file of this name is masked whatever it holds."""
    if name == ".env" or (name.startswith(".env.") and name.rpartition(".")[2] not in HARMLESS_ENV):
        return True
    if name.endswith(".env") and name[:-4].rpartition(".")[2] not in HARMLESS_ENV:
        return True
    return name in SECRET_FILES or name.endswith(SECRET_SUFFIXES)


def may_be_secret(name: str) -> bool:
    """Tell whether the content of a file of this name decides."""
    if name.endswith(KEY_SUFFIXES) or name in {".npmrc", ".yarnrc.yml"}:
        return True
    if not name.endswith(".json"):
        return False
    low = name.lower()
    return any(word in low for word in ("account", "credential", "secret", "key", "adminsdk", "gcp", "-sa"))


def is_secret_content(name: str, start: bytes) -> bool:
    """Judge the first bytes of a file that may be secret."""
    if name == ".npmrc":
        for line in start.decode(errors="replace").lower().splitlines():
            if any(word in line for word in NPM_SECRETS) and "${" not in line:
                return True
        return False
    if name == ".yarnrc.yml":
        return b"npmAuthToken" in start and b"${" not in start
    if name.endswith(".json"):
        return b'"private_key"' in start or b'"client_secret"' in start
    return b"PRIVATE KEY" in start


def matches(path: str, globs: tuple[str, ...]) -> bool:
    """Match a relative path: `*` within a name, `**` for any directories; a bare name matches anywhere."""
    parts = path.split("/")
    return any(_matches(parts if "/" in glob else parts[-1:], glob.strip("/").split("/")) for glob in globs)


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    if not parts:
        return False
    from fnmatch import fnmatchcase  # deferred: few users unmask anything

    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
