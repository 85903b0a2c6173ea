"""What a container engine says when it fails, as a sentence and what to type.

Rule 1: this module does no I/O.
Rule 2: what is not known is shown, not guessed at: the engine's own last lines.
"""

from __future__ import annotations

from cloister.errors import CloisterError, HostError
from cloister.values import dataclass

_LINES = 6
_LINE_CHARACTERS = 400
_INSTALL = {
    "docker": "sudo apt-get install docker.io   (or: https://docs.docker.com/engine/install)",
    "podman": "sudo apt-get install podman",
}


@dataclass(frozen=True, slots=True)
class Known:
    """`signs`: texts of which one must be found, in lower case. Braces: {engine}, {image}, {doing}."""

    signs: tuple[str, ...]
    brief: str
    resolution: str


# The first that fits counts.
_KNOWN = (
    Known(
        ("permission denied while trying to connect", "dial unix", "connect: permission denied"),
        "you may not use the {engine} engine",
        "become a member of its socket's group (who then is as good as root here): sudo usermod -aG docker $USER; "
        "or use Podman, which needs no rights: --runtime podman",
    ),
    Known(
        ("cannot connect to the docker daemon", "is the docker daemon running", "error during connect",
         "unable to connect to podman", "connection refused", "eof while reading"),
        "the {engine} engine does not answer",
        "start it: sudo systemctl start docker; see what is wrong: {engine} info",
    ),
    Known(
        ("no space left on device", "disk quota exceeded"),
        "the disk of the {engine} engine is full",
        "make room: {engine} system df, then: {engine} system prune",
    ),
    Known(
        ("no such image", "image not known", "unable to find image", "does not resolve to an image ID".lower(),
         "initializing source", "unable to copy from source", "short-name"),
        "the image {image!r} is not there",
        "get it: {engine} pull {image}; or build one: cloister image build",
    ),
    Known(
        ("invalid reference format", "repository name must be lowercase"),
        "{image!r} is no name of an image",
        'for example: image = "debian:bookworm"',
    ),
    Known(
        ("exec format error", "exec user process caused"),
        "the image {image!r} is for another kind of processor",
        "build or pull it for this one, or: sudo apt-get install qemu-user-static",
    ),
    Known(
        ("newuidmap", "no subuid ranges", "no subgid ranges", "cannot find newgidmap", "/etc/subuid"),
        "podman may not map users for you",
        "sudo apt-get install uidmap && sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER, "
        "then: podman system migrate",
    ),
    Known(
        ("cannot join network of a non running container", "no such container", "container state improper",
         "is not running", "no container with name or id"),
        "the sandbox's container has ended",
        "start it again; what the engine says of it: {engine} ps --all --filter label=dev.cloister.sandbox",
    ),
    Known(
        ("is already in use by container", "that name is already in use"),
        "a container of that name is left over",
        "remove it: cloister stop; or: {engine} ps --all --filter label=dev.cloister.sandbox",
    ),
    Known(
        ("cannot overwrite non-directory", "cannot overwrite directory"),
        "something in the sandbox's home is in the way of what is to be mounted there",
        "start it without what names that path, and move that away in there; or begin anew: cloister rm --volumes",
    ),
    Known(
        ("volume is in use",),
        "a sandbox that runs on the {engine} engine has these files",
        "stop it first: cloister stop",
    ),
    Known(
        ("invalid mount path", "are you trying to mount", "error mounting", "bind source path does not exist"),
        "the {engine} engine cannot show the sandbox a file of this host",
        "see the message above; if the engine runs in a virtual machine, share the project's directory with it; "
        "if it runs on another one, name that: DOCKER_HOST=ssh://USER@HOST",
    ),
)  # fmt: skip


def failure(engine: str, doing: str, said: str, *, image: str = "") -> CloisterError:
    """The error of an engine's command that failed. `doing` completes "could not …"; `said` is its standard error."""
    low = said.lower()
    for known in _KNOWN:
        if any(sign in low for sign in known.signs) and not _is_about_permission(known, low):
            return HostError(
                known.brief.format(engine=engine, image=image, doing=doing),
                details=last_lines(said),
                resolution=known.resolution.format(engine=engine, image=image, doing=doing),
            )
    return HostError(
        f"{engine} could not {doing}",
        details=last_lines(said) or "it said nothing",
        resolution=f"see whether the engine is well: {engine} info; or do without: --runtime embedded",
    )


def _is_about_permission(known: Known, low: str) -> bool:
    """ "dial unix" alone also begins the message of an engine that is not there."""
    return "dial unix" in known.signs and "permission denied" not in low


def missing(engine: str) -> HostError:
    """There is no such program."""
    return HostError(
        f"{engine} is not installed",
        details=f"no program {engine!r} was found on PATH",
        resolution=f"{_INSTALL[engine]}; or do without containers: --runtime embedded",
    )


def is_missing_image(said: str) -> bool:
    """Whether a command failed because the engine does not have an image."""
    low = said.lower()
    return any(
        sign in low
        for sign in ("no such image", "image not known", "unable to find image", "does not resolve")
    )


def is_missing_container(said: str) -> bool:
    """Whether a command failed because there is no such container."""
    low = said.lower()
    return any(sign in low for sign in ("no such container", "no container with"))


def is_missing_path(said: str) -> bool:
    """Whether `cp` failed because a container has nothing at the path that was named."""
    low = said.lower()
    return any(
        sign in low for sign in ("no such container:path", "could not find the file", "must be a directory")
    )


def last_lines(said: str) -> str:
    """The end of what an engine said, without what is no news: the usage hint."""
    lines = [
        line.strip()[:_LINE_CHARACTERS]
        for line in said.splitlines()
        if line.strip() and not line.startswith(("See '", "Run '")) and "level=warning" not in line
    ]
    return "\n".join(lines[-_LINES:])
