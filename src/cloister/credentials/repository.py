"""Which repository a request to a forge is about: GitHub and GitLab, their web hosts and their APIs alike.

Rule 1: names are compared in lower case; both forges do.
Rule 2: what is not plainly about one repository (search, GraphQL, numbers of projects) is about none.
Rule 3: what some server may take for a push is one, however oddly it is written; a fetch is one only as git writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

_PART = r"[A-Za-z0-9_.-]{1,100}"
_GITHUB_WEB = re.compile(rf"/({_PART})/({_PART})(?:/.*)?")
_GITHUB_API = re.compile(rf"/(?:api/v3/)?repos/({_PART})/({_PART})(?:/.*)?")
_GITLAB_API = re.compile(r"/api/v4/projects/([^/]+)(?:/.*)?")
_GITLAB_WEB = re.compile(
    rf"/({_PART}(?:/{_PART})*)/({_PART}?)(?:\.git(?:/.*)?|/-/.*|/info/refs|/git-(?:upload|receive)-pack)"
)
_FETCH, _PUSH = "git-upload-pack", "git-receive-pack"
_READING = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository by its owner (on GitLab: its group and subgroups) and name, in lower case."""

    owner: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GitService:
    """A request of git's: "upload-pack" (fetch) or "receive-pack" (push), or the advertisement of refs before it."""

    name: str
    advertisement: bool


def of_request(host: str, path: str) -> Repository | None:
    """The repository that a request is about; None if it is not about one."""
    if _is_ambiguous(path):
        return None
    if "gitlab" in host:
        return _gitlab(path)
    if host.startswith(("api.", "uploads.")) or path.startswith("/api/v3/"):
        match = _GITHUB_API.fullmatch(_decoded(path))
    else:
        match = _GITHUB_WEB.fullmatch(_decoded(path))
    return _repository(match[1], match[2]) if match is not None else None


def git_service(method: str, path: str, query: str | None) -> GitService | None:
    """What a request asks of git's smart HTTP protocol; None if it is none (gitprotocol-http(5))."""
    segments = _loose_segments(path)
    if method not in _READING and _PUSH in segments:
        return GitService(name="receive-pack", advertisement=False)
    if "info/refs" in "/".join(segments):
        services = [service.strip().lower() for service in _services(query)]
        if _PUSH in services:  # asked for twice, the one that writes counts
            return GitService(name="receive-pack", advertisement=True)
        if _FETCH in services and method in _READING and _decoded(path).endswith("/info/refs"):
            return GitService(name="upload-pack", advertisement=True)
    if method == "POST" and _decoded(path).endswith("/" + _FETCH):
        return GitService(name="upload-pack", advertisement=False)
    return None


def _services(query: str | None) -> list[str]:
    """Every `service` of a query; some servers separate with `;` too."""
    return parse_qs((query or "").replace(";", "&")).get("service", [])


def _loose_segments(path: str) -> list[str]:
    """A path's segments as the most forgiving server would read them."""
    loose = unquote(unquote(path)).replace("\\", "/").lower().split("?")[0].replace("\0", "/")
    return [segment.split(";")[0].strip(". ") for segment in loose.split("/") if segment.strip(". ")]


def _is_ambiguous(path: str) -> bool:
    """Whether servers may take it for another path: what is escaped may be undone before dots are resolved."""
    loose = unquote(unquote(path))
    segments = (segment.split(";")[0] for segment in loose.split("/"))
    return "//" in loose or "\\" in loose or any(segment in (".", "..") for segment in segments)


def _gitlab(path: str) -> Repository | None:
    api = _GITLAB_API.fullmatch(path)
    if api is not None:
        project = unquote(api[1])
        owner, slash, name = project.rpartition("/")
        return _repository(owner, name) if slash and not project.isdecimal() else None
    web = _GITLAB_WEB.fullmatch(_decoded(path))
    if web is None:
        return None
    owner, name = web[1], web[2]
    if not name:
        owner, _, name = owner.rpartition("/")
    return _repository(owner, name) if owner else None


def _repository(owner: str, name: str) -> Repository | None:
    name = name.lower().removesuffix(".git")
    if not name or name in (".", "..") or any(part in (".", "..") for part in owner.split("/")):
        return None
    return Repository(owner=owner.lower(), name=name)


def _decoded(path: str) -> str:
    """The path with its escapes undone, but for an escaped slash, which is part of a name."""
    return re.sub(r"%([0-9A-Fa-f]{2})", lambda m: m[0] if m[1].lower() == "2f" else chr(int(m[1], 16)), path)
