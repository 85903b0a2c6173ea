"""The published ports of a start: taken on this machine before anything else exists, then given to the gateway.

Imported only where a port is published.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from cloister.errors import CloisterError
from cloister.network import publish
from cloister.network.publish import Bound
from cloister.policy.published import PublishedPort, parse_document
from cloister.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.session.gateway_process import Gateway


def take(settings: Mapping[str, object], directory: str, tell: Callable[[str], None]) -> tuple[Bound, ...]:
    """Listen for the ports of a plan's "sandbox"; `directory` is the project's. HostError if one is in use.

    `tell` hears of each port that nobody has named, and of each that is not where it was looked for.
    """
    try:
        declared = parse_document(settings.get("ports") or [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CloisterError(
            "the stored plan is damaged", details=str(error), resolution="run: cloister policy show"
        ) from None
    found = _detected(directory, declared, tell) if settings.get("detect_ports") is True else ()
    bound = publish.bind((*declared, *found))
    for one in bound:
        if one.port.auto:
            tell(f"port {one.port.sandbox} of the sandbox is http://127.0.0.1:{one.port.host} here")
    return bound


def give(bound: tuple[Bound, ...], gateway: Gateway) -> None:
    """Pass the listening sockets on, and close ours. GatewayError if the gateway is dead."""
    for one in bound:
        for sock in one.sockets:
            entry = {
                "kind": "publish",
                "family": 6 if ":" in sock.getsockname()[0] else 4,
                "address": sock.getsockname()[0],
                "port": one.port.sandbox,
            }
            gateway.listen(entry, sock)
        one.close()


def _detected(
    directory: str, declared: tuple[PublishedPort, ...], tell: Callable[[str], None]
) -> list[PublishedPort]:
    """The ports of the project's frameworks that are not declared, each at the next free port here."""
    from cloister.sandbox import frameworks  # only where they are looked for

    catalogue = frameworks.load()
    found = frameworks.detect(catalogue, _texts(directory, catalogue.files))
    known = {port.sandbox for port in declared}
    ports = []
    for one in found:
        if one.port not in known:
            tell(f"publishing port {one.port}: {one.file} shows {one.framework}")
            ports.append(PublishedPort(host=one.port, sandbox=one.port, auto=True))
    if not found:
        tell("no framework of this project is known, so none of its ports is published; name them: -p PORT")
    return ports


def _texts(directory: str, names: frozenset[str]) -> dict[str, str]:
    texts = {}
    for name in names:
        try:
            content = files.read(os.path.join(directory, name))
        except OSError:
            continue  # not a regular file, or not ours to read
        if content is not None:
            texts[name] = content.decode(errors="replace")
    return texts
