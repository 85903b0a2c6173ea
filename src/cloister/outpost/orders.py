"""What the session says to the host's half of a gateway in a container, and what of that goes into the container."""

from __future__ import annotations

from collections.abc import Mapping

from cloister.outpost.frames import Message
from cloister.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the session says. `argv` runs the container, `remove` ends the sandbox if the session dies."""

    sandbox_id: str
    plan: dict[str, object]
    audit_path: str
    untrusted: tuple[str, ...]
    control_path: str
    public_directory: str
    host_roots: str | None
    upstream_ca: tuple[str, ...]
    environ: Mapping[str, str]
    engine: Mapping[str, str]  # the client's environment
    argv: tuple[str, ...]
    remove: tuple[tuple[str, ...], ...]
    bound: list[object]

    def message(self) -> Message:
        """The first one to the container: the plan and root certificates, and of the environment the proxies alone."""
        paths = ([self.host_roots] if self.host_roots else []) + [*self.upstream_ca]
        texts = [open(path, encoding="utf-8", errors="replace").read() for path in paths]  # noqa: SIM115
        proxies = {name: value for name, value in self.environ.items() if name.lower().endswith("_proxy")}
        return {
            "op": "orders",
            "sandbox": self.sandbox_id,
            "plan": self.plan,
            "roots": texts if self.host_roots else ["", *texts],
            "environment": proxies,
            "bound": self.bound,
        }
