"""What to say of a build that failed: the step, its last lines, and what to type.

Rule 1: this module does no I/O. Rule 2: what is not known is shown, not guessed at.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloister.config.wording import visible
from cloister.errors import HostError
from cloister.images.progress import Step
from cloister.images.render import NO_APT

_INSTRUCTION_CHARACTERS = 72
_LINE_CHARACTERS = 300
# What a build prints → what to type. The first that fits counts.
_KNOWN = (
    (NO_APT, "give a base that is Debian or Ubuntu: --base debian:bookworm-slim"),
    ("no space left on device", "make room: {engine} system df, then: {engine} builder prune"),
    ("disk quota exceeded", "make room: {engine} system df, then: {engine} builder prune"),
    ("exec format error", "this machine runs no programs of that platform yet: sudo apt-get install qemu-user-static"),
    ("exec user process", "this machine runs no programs of that platform yet: sudo apt-get install qemu-user-static"),
    ("failed to create endpoint", "the engine has no network for builds: use that of its host: --network host"),
    ("temporary failure resolving", "if names resolve on this host alone, build on its network: --network host"),
    ("could not resolve", "if names resolve on this host alone, build on its network: --network host"),
    ("could not connect to", "if only this host gets out, build on its network: --network host, or --apt-mirror URL"),
    ("unable to locate package", "give another base (--base), or a mirror that has it (--apt-mirror)"),
    ('"--platform" is only supported', "for another platform it needs buildx: install docker-buildx-plugin"),
)  # fmt: skip


def failure(name: str, engine: str, code: int, step: Step | None, lines: Sequence[str]) -> HostError:
    """The error of a build that ended with `code`."""
    lines = [visible(line[:_LINE_CHARACTERS]) for line in lines]
    text = "\n".join(lines).lower()
    resolution = next((then for sign, then in _KNOWN if sign in text), "")
    where = ""
    if step is not None:
        instruction = " ".join(step.instruction.split())
        cut = instruction[:_INSTRUCTION_CHARACTERS] + (
            "…" if len(instruction) > _INSTRUCTION_CHARACTERS else ""
        )
        where = f"in {step.stage or 'the build'}: {cut}\n"
    return HostError(
        f"the image {name!r} could not be built: {engine} ended with code {code}",
        details=where + "\n".join(lines),
        resolution=resolution.format(engine=engine)
        or f"see what failed above; again without the cache: cloister image build {name} --no-cache",
    )
