"""Choose the image of a container sandbox: what the configuration names, else the one for the project's language.

Rule 1: what is named is used; nothing else is tried in its place.
Rule 2: no image is built unasked: it takes minutes, and the network. The error says what to type.
"""

from __future__ import annotations

import os

from cloister.errors import HostError
from cloister.images.detect import FILES, Detection, detect
from cloister.images.engine import Engine, image_id
from cloister.images.layer import names
from cloister.images.render import tag

_LIMIT_BYTES = 1 << 20


def detected(workspace: str) -> Detection:
    """The image that suits the project in a directory."""
    found: dict[str, str | None] = {}
    for name in FILES:
        path = os.path.join(workspace, name)
        if os.path.lexists(path):
            found[name] = _text(path)
    return detect(found)


def image_for(image: str | None, *, workspace: str, engine: Engine) -> str:
    """The reference of the image; HostError if it is one of ours and has not been built."""
    if image is not None and image not in names():
        return image
    reasons: tuple[str, ...] = ()
    if image is None:
        detection = detected(workspace)
        image, reasons = detection.image, detection.reasons
    reference = tag(image)
    if image_id(engine, reference) is None:
        chosen = [f"chosen by {reason}" for reason in reasons]
        raise HostError(
            f"the image {image!r} has not been built on this engine ({engine.name})",
            details="\n".join(chosen),
            resolution=f"run: cloister image build {image} --runtime {engine.name}",
        )
    return reference


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
