"""What the host does for a gateway that runs elsewhere, in a container of the engine (outpost/).

Rule 1: what the host knows and nobody else may stays there: sources of credentials, the audit log, the places that
        only the host reaches. A gateway on the host has no `Home`, and does the same by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cloister.gateway.record import Log
    from cloister.gateway.upstream import Upstream
    from cloister.secrets.source import Value
    from cloister.types import Credential


class Home(Protocol):
    """The host, as its gateway sees it from afar."""

    @property
    def log(self) -> Log:
        """The audit log."""

    async def fetch(self, credential: Credential) -> Value:
        """The value of a credential. CredentialError."""

    async def dial(self, host: str, port: int) -> Upstream:
        """A connection to the place at which the user has pinned a name. OSError, TimeoutError."""

    async def dial_proxy(self, host: str, port: int) -> Upstream:
        """A connection to the proxy of the user's environment. OSError, TimeoutError."""

    async def is_own(self, address: str) -> bool:
        """Whether a public address is one of the host itself. OSError, TimeoutError."""
