"""Which image suits a project. What the configuration names is used instead (session/container_place.py)."""

from __future__ import annotations

import os

from cloister.images.detect import FILES, Detection, detect

_LIMIT_BYTES = 1 << 20


def detected(workspace: str) -> Detection:
    """The image that suits the project in a directory."""
    found: dict[str, str | None] = {}
    for name in FILES:
        path = os.path.join(workspace, name)
        if os.path.lexists(path):
            found[name] = _text(path)
    return detect(found)


def _text(path: str) -> str | None:
    """The text of a regular file, None for anything else: the workspace is an agent's, a link may lead anywhere."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not os.path.isfile(f"/proc/self/fd/{descriptor}"):
                return None
            return file.read(_LIMIT_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return None
