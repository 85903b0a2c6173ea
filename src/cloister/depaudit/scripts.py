"""Recognise code of a package that runs because the package is installed: by the environment and argv of a start.

Rule 1: no I/O. What cannot be told from a start is not guessed.
Rule 2: a program can pretend to be a script, which only makes it look worse.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence

from cloister.depaudit.observation import Script

# Variables of the environment that are looked at; everything else stays unread.
VARIABLES = frozenset(
    {
        "npm_lifecycle_event", "npm_lifecycle_script", "npm_package_name", "npm_package_version",
        "CARGO_PKG_NAME", "CARGO_PKG_VERSION",
    }
)  # fmt: skip
# npm-scripts(7): what runs on its own at an installation, `prepare` for git dependencies and the project itself.
LIFECYCLE = frozenset(
    {
        "preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare", "dependencies",
        "prepack", "postpack",
    }
)  # fmt: skip
_HOOKS = frozenset(
    {
        "get_requires_for_build_wheel", "get_requires_for_build_editable", "get_requires_for_build_sdist",
        "prepare_metadata_for_build_wheel", "prepare_metadata_for_build_editable",
        "build_wheel", "build_editable", "build_sdist",
    }
)  # fmt: skip
_SETUP_ORDERS = frozenset({"egg_info", "install", "bdist_wheel", "develop", "build", "build_ext", "sdist"})
_HOOK_IN_CODE = re.compile(
    r"\b(?:build|prepare_metadata_for_build|get_requires_for_build)_(?:wheel|editable|sdist)\b"
)
_CARGO_SCRIPT = re.compile(r"/build/([A-Za-z0-9_-]+)-[0-9a-f]{16}/build-script-[A-Za-z0-9_-]+$")
_PIP_DIRECTORY = re.compile(r"/pip-(?:install|wheel|modern-metadata)-[^/]+/([^/]+?)_[0-9a-f]{32}(?:/|$)")
_INTERPRETERS = re.compile(
    r"(?:node|nodejs|bun|deno|python[0-9.]*|pypy[0-9.]*|ruby|perl|sh|bash|dash|zsh|env)"
)
_WITH_VALUE = ("-W", "-X", "-r", "--require", "--loader", "--import")
_SUFFIXES = (".js", ".cjs", ".mjs", ".py", ".rb", ".pl", ".sh", "-cli")


def recognise(
    path: str, arguments: Sequence[str], environment: Mapping[str, str], directory: str, *, workspace: str
) -> Script | None:
    """The script that such a start is the beginning (or a part) of."""
    return (
        _of_npm(environment, directory, workspace)
        or _of_python(arguments, directory, workspace)
        or _of_cargo(path, environment)
        or _of_ruby(arguments, directory)
    )


def program(arguments: Sequence[str]) -> str:
    """What a process is, for people: of `node /usr/bin/npm ci` it is "npm", of `python -m pip` "pip"."""
    words = [posixpath.basename(word) for word in arguments[:1]] or [""]
    if not _INTERPRETERS.fullmatch(words[0]):
        return words[0]
    rest = list(arguments[1:])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "-m" and rest:
            return rest[0].partition(".")[0]
        if option in ("-c", "-e", "--eval", "-p"):
            return words[0]
        if option in _WITH_VALUE and rest:
            rest.pop(0)
    if not rest:
        return words[0]
    name = posixpath.basename(rest[0])
    if name in ("__main__.py", "__pip-runner__.py"):  # pip calls itself by its directory
        name = posixpath.basename(posixpath.dirname(rest[0]))
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name or words[0]


def shown(arguments: Sequence[str]) -> str:
    """The same with its interpreter, where the name alone says little: "node setup.js"."""
    name = program(arguments)
    for word in arguments[1:]:
        base = posixpath.basename(word)
        if base in (f"{name}{suffix}" for suffix in _SUFFIXES if suffix.startswith(".")):
            return f"{posixpath.basename(arguments[0])} {base}"
    return name


def _of_npm(environment: Mapping[str, str], directory: str, workspace: str) -> Script | None:
    """npm, pnpm, yarn and bun set the same variables."""
    stage = environment.get("npm_lifecycle_event", "")
    if stage not in LIFECYCLE:
        return None
    return Script(
        package=environment.get("npm_package_name", "") or posixpath.basename(directory),
        version=environment.get("npm_package_version", ""),
        stage=stage,
        command=environment.get("npm_lifecycle_script", ""),
        own=directory == workspace,
    )


def _of_python(arguments: Sequence[str], directory: str, workspace: str) -> Script | None:
    stage = next((word for word in arguments if word in _HOOKS), "")
    if not stage and any(posixpath.basename(word) == "setup.py" for word in arguments[1:]):
        stage = "setup.py"
    if not stage and (code := _code(arguments)):
        hook = _HOOK_IN_CODE.search(code)  # uv, and pip for a setup.py of old
        stage = hook.group() if hook else "setup.py" if "setup.py" in code and "exec(" in code else ""
    if not stage or not _INTERPRETERS.fullmatch(posixpath.basename(arguments[0])):
        return None
    order = next((word for word in arguments if word in _SETUP_ORDERS), "") if stage == "setup.py" else ""
    named = _PIP_DIRECTORY.search(directory)
    return Script(
        package=named[1] if named else "",
        version="",
        stage=f"{stage} {order}".strip(),
        command=_brief(arguments),
        own=directory == workspace,
    )


def _brief(arguments: Sequence[str]) -> str:
    """The beginning of a command line, on one line: code and long paths are cut."""
    words = [posixpath.basename(arguments[0]), *arguments[1:6]]
    return " ".join("…" if "\n" in word else word if len(word) <= 80 else f"…{word[-79:]}" for word in words)


def _code(arguments: Sequence[str]) -> str:
    """What Python is given after -c, if it is."""
    rest = list(arguments[1:])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option.startswith("-") and option.endswith("c") and not option.startswith("--"):
            return rest[0] if rest else ""
        if option in _WITH_VALUE and rest:
            rest.pop(0)
    return ""


def _of_cargo(path: str, environment: Mapping[str, str]) -> Script | None:
    found = _CARGO_SCRIPT.search(path)
    if found is None:
        return None
    return Script(
        package=environment.get("CARGO_PKG_NAME", "") or found[1],
        version=environment.get("CARGO_PKG_VERSION", ""),
        stage="build.rs",
        command=posixpath.basename(path),
    )


def _of_ruby(arguments: Sequence[str], directory: str) -> Script | None:
    if not any(posixpath.basename(word) == "extconf.rb" for word in arguments[1:]):
        return None
    gem = re.search(r"/gems/([^/]+)-([0-9][^/-]*)(?:/|$)", directory)
    return Script(
        package=gem[1] if gem else "", version=gem[2] if gem else "", stage="extconf.rb", command="extconf.rb"
    )
