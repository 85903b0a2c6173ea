"""Find, in lock files, what does not come from a package registry: git repositories, URLs, other indexes.

Rule 1: no I/O, and no parser that runs anything; a text that cannot be read raises UntrustedInputError.
Rule 2: a source that is not known to be a registry's is told.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from cloister.depaudit.observation import Dependency
from cloister.errors import UntrustedInputError

_REGISTRIES = frozenset(
    {
        "registry.npmjs.org", "registry.yarnpkg.com", "registry.npmmirror.com", "npm.jsr.io", "pypi.org",
        "files.pythonhosted.org", "static.crates.io", "index.crates.io", "crates.io", "proxy.golang.org", "repo.hex.pm",
    }
)  # fmt: skip
_COMMIT = re.compile(r"\b[0-9a-f]{40}(?:[0-9a-f]{24})?\b")
_GIT = re.compile(r"^(?:git[+@:]|git://|ssh://|github:|gitlab:|bitbucket:|gist:)|\.git(?:[#?@]|$)")
_YARN_ENTRY = re.compile(r'^"?(@?[^@"\s]+)@')
_LIMIT_DEPENDENCIES = 2000

_Found = Iterator[tuple[str, str, bool]]  # package, source, whether a digest stands beside it


def dependencies(name: str, untrusted_text: str, *, file: str) -> tuple[Dependency, ...]:
    """Those of one lock file. `name` is its last component, `file` its path for people."""
    reader = _READERS.get(name) or (_requirements if re.fullmatch(r"requirements.*\.txt", name) else None)
    if reader is None:
        return ()
    try:
        found: list[Dependency] = []
        for package, source, digest in reader(untrusted_text):
            kind = _kind(source)
            if kind and len(found) < _LIMIT_DEPENDENCIES:
                found.append(
                    Dependency(
                        file=file,
                        package=package,
                        kind=kind,
                        source=_without_password(source),
                        pinned=digest or _COMMIT.search(source) is not None,
                        cleartext=source.startswith(
                            ("http://", "git://", "git+http://", "ftp://", "index+http://")
                        ),
                    )
                )
        return tuple(dict.fromkeys(found))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UntrustedInputError(
            f"{file} cannot be read as what its name says: {type(error).__name__}"
        ) from error


def is_lock_file(name: str) -> bool:
    """Whether `dependencies` reads files of this name."""
    return name in _READERS or re.fullmatch(r"requirements.*\.txt", name) is not None


def _kind(source: str) -> str:
    """The kind of a source; empty if it is a registry's."""
    if source.startswith("index+"):
        return "" if urlsplit(source.removeprefix("index+")).hostname in _REGISTRIES else "index"
    if _GIT.search(source):
        return "git"
    if re.match(r"(?:https?|ftp)://", source):
        host = urlsplit(source).hostname or ""
        return "" if host in _REGISTRIES else "git" if host == "codeload.github.com" else "url"
    return ""


def _without_password(source: str) -> str:
    """Lock files hold tokens now and then."""
    return re.sub(r"(://)[^/@\s]*:[^/@\s]*@", r"\1", source)


def _npm(text: str) -> _Found:
    document = json.loads(text)
    for path, entry in document.get("packages", {}).items():
        name = path.rpartition("node_modules/")[2] or entry.get("name", "")
        yield name, entry.get("resolved", ""), "integrity" in entry
    pending = list(document.get("dependencies", {}).items())
    while pending:  # lockfileVersion 1
        name, entry = pending.pop()
        version = str(entry.get("version", ""))
        yield name, entry.get("resolved", "") or version, "integrity" in entry
        if _kind(version) == "git":
            yield name, version, False
        pending += entry.get("dependencies", {}).items()


def _pnpm(text: str) -> _Found:
    """Line by line: a YAML parser is no dependency of ours, and pnpm writes this file in one way."""
    package = ""
    for line in text.splitlines():
        if entry := re.match(r"^  (?:/|')?(@?[^@'\s:][^@']*)@", line):
            package = entry[1]
        if tarball := re.search(r"tarball: ['\"]?([^\s,'\"}]+)", line):
            yield package, tarball[1], "integrity:" in line
        if repository := re.search(r"repo: ['\"]?([^\s,'\"}]+)", line):
            commit = re.search(r"commit: ([0-9a-f]+)", line)
            source = repository[1] if _GIT.search(repository[1]) else f"git+{repository[1]}"
            yield package, f"{source}#{commit[1]}" if commit else source, False


def _yarn(text: str) -> _Found:
    package = ""
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")) and (entry := _YARN_ENTRY.match(line)):
            package = entry[1]
        if resolved := re.match(r'\s+resolved "?([^"\s]+)', line):
            yield package, resolved[1], False
        if resolution := re.match(r'\s+resolution: "@?[^@"]+@(.+)"', line):
            yield package, resolution[1].replace("#commit=", "#"), False


def _poetry(text: str) -> _Found:
    for entry in tomllib.loads(text).get("package", []):
        source = entry.get("source", {})
        url, kind = str(source.get("url", "")), source.get("type", "")
        if kind == "git":
            yield entry["name"], f"git+{url}#{source.get('resolved_reference', '')}", False
        elif kind == "url":
            yield entry["name"], url, bool(entry.get("files"))
        elif kind == "legacy":
            yield entry["name"], f"index+{url}", bool(entry.get("files"))


def _uv(text: str) -> _Found:
    for entry in tomllib.loads(text).get("package", []):
        source = entry.get("source", {})
        if "git" in source:
            yield entry["name"], f"git+{source['git']}", False
        elif "url" in source:
            yield entry["name"], source["url"], "hash" in entry.get("sdist", {}) or bool(entry.get("wheels"))
        elif "registry" in source and "://" in source["registry"]:
            yield entry["name"], f"index+{source['registry']}", True


def _cargo(text: str) -> _Found:
    for entry in tomllib.loads(text).get("package", []):
        source = entry.get("source", "")
        if source.startswith("git+"):
            yield entry["name"], source, False
        elif source.startswith("registry+") and "github.com/rust-lang/crates.io-index" not in source:
            yield entry["name"], "index+" + source.removeprefix("registry+"), "checksum" in entry


def _go(text: str) -> _Found:
    """`replace` of go.mod: another module stands in for a known one."""
    for line in text.splitlines():
        code = line.partition("//")[0]
        if found := re.match(r"\s*(?:replace\s+)?(\S+)(?:\s+v\S+)?\s+=>\s+([^\s./]\S*)\s+(v\S+)", code):
            yield found[1], f"git+https://{found[2]}@{found[3]}", True  # go.sum holds its digest


def _mix(text: str) -> _Found:
    for found in re.finditer(r'"([^"]+)":\s*\{:git,\s*"([^"]+)",\s*"([0-9a-f]+)"', text):
        source = found[2] if _GIT.search(found[2]) else f"git+{found[2]}"
        yield found[1], f"{source}#{found[3]}", False


def _requirements(text: str) -> _Found:
    for line in text.replace("\\\n", " ").splitlines():
        words = re.sub(r"(?:^|\s)#.*", "", line).strip()
        option = re.match(r"(?:--(?:extra-)?index-url|-i|--find-links|-f)[=\s]+(\S+)", words)
        if option:
            yield "(every package)", f"index+{option[1]}", False
            continue
        direct = re.match(
            r"(?:([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*@\s*|(?:-e|--editable)\s+)?((?:git\+|https?://|git://|ssh://)\S+)",
            words,
        )
        if direct:
            egg = re.search(r"[#&]egg=([A-Za-z0-9._-]+)", direct[2])
            yield (
                direct[1] or (egg[1] if egg else "(unnamed)"),
                direct[2],
                "--hash=" in words or "#sha256=" in words,
            )


def _pipfile(text: str) -> _Found:
    document = json.loads(text)
    for source in document.get("_meta", {}).get("sources", []):
        yield "(every package)", f"index+{source['url']}", False
    for section in ("default", "develop"):
        for name, entry in document.get(section, {}).items():
            if "git" in entry:
                yield name, f"git+{entry['git']}#{entry.get('ref', '')}", False
            elif "file" in entry:
                yield name, entry["file"], bool(entry.get("hashes"))


_READERS: Mapping[str, Callable[[str], _Found]] = {
    "package-lock.json": _npm,
    "npm-shrinkwrap.json": _npm,
    "pnpm-lock.yaml": _pnpm,
    "yarn.lock": _yarn,
    "poetry.lock": _poetry,
    "uv.lock": _uv,
    "Cargo.lock": _cargo,
    "go.mod": _go,
    "mix.lock": _mix,
    "Pipfile.lock": _pipfile,
}
