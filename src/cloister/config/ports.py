"""The published ports of [sandbox] and the command line.

Rule 1: nothing is published unless it stands here. Those of all files and the command line add up, each once.
Rule 2: two that want the same port of this machine are an error now, whichever files they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloister.config.load import Loaded
from cloister.config.place import Place, option, place_of
from cloister.config.settings import Overrides
from cloister.policy.published import EXPECTED, PortError, PublishedPort, collision, parse_published

DETECT = "detect"
_EXPECTED = f'a list of ports, or "{DETECT}". {EXPECTED[0].upper()}{EXPECTED[1:]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is published. `detect`: those of the project's frameworks too."""

    ports: tuple[PublishedPort, ...]
    detect: bool

    def document(self) -> dict[str, object]:
        """What stands in the plan's "sandbox"."""
        return {"ports": [port.document() for port in self.ports], "detect_ports": self.detect}


def published_of(files: Sequence[Loaded], overrides: Overrides) -> Published:
    """The merged `ports`. ConfigurationError or UsageError if something is wrong."""
    wanted = [entry for file in files for entry in _entries(file)]
    detect = overrides.detect_ports or any(text == DETECT for text, _ in wanted)
    found: dict[PublishedPort, None] = {}
    command_line = ((text, option("--publish")) for text in overrides.ports)
    for text, place in [*(entry for entry in wanted if entry[0] != DETECT), *command_line]:
        try:
            found[parse_published(text)] = None
        except PortError as error:
            raise place.error(error.reason, expected=error.expected, found=text) from None
        if (other := collision(found)) is not None:
            raise place.error(
                f"port {other.host} of this machine is published twice",
                expected="one port of the sandbox at it",
                found=text,
            )
    return Published(ports=tuple(found), detect=detect)


def _entries(file: Loaded) -> Iterator[tuple[str, Place]]:
    said, place = file.document.sandbox.ports, place_of(file, "sandbox", "ports")
    if isinstance(said, str):
        yield said, place
    elif isinstance(said, (list, tuple)):
        for index, one in enumerate(said):
            if isinstance(one, bool) or not isinstance(one, (int, str)):
                raise place.item(index).error("this is no port", expected=EXPECTED, found=one)
            yield str(one), place.item(index)
    else:
        raise place.error("these are no ports", expected=_EXPECTED, found=said)
