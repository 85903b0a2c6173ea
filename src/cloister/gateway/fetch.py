"""Fetch a credential's value from its source, in a thread, with a deadline.

Rule 1: what fails is a CredentialError whose brief may be read in the sandbox; the user hears its details, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from cloister.errors import CredentialError
from cloister.gateway.offload import Offload
from cloister.secret import Secret
from cloister.secrets import source as sources
from cloister.secrets.lease import Clock
from cloister.secrets.source import Context, Value
from cloister.types import Credential

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloister.system.proc import Running

_GRACE_S = (
    5.0  # for a thread to notice its deadline; one that cannot (a file on a dead server) is left behind
)
_TOLD_LIMIT = 64

Fetch = Callable[[Credential], Awaitable[Value]]
Tell = Callable[[str], None]


class Fetcher:
    """Fetches for one sandbox. `known` gives what must not be shown of what programs say (`Context`)."""

    def __init__(
        self,
        *,
        offload: Offload,
        environ: Mapping[str, str],
        tell: Tell,
        upstream_ca: tuple[str, ...],
        untrusted: tuple[str, ...],
        known: Callable[[], tuple[Secret, ...]],
        clock: Clock,
        deadline_s: float,
    ) -> None:
        self._offload = offload
        self._environ = dict(environ)
        self._tell = tell
        self._told: set[str] = set()
        self._upstream_ca = upstream_ca
        self._untrusted = untrusted
        self._known = known
        self._clock = clock
        self._deadline_s = deadline_s
        self._running: Running | None = None

    async def fetch(self, credential: Credential) -> Value:
        """The value. CredentialError, of which the user hears the details once."""
        from cloister.system.proc import Running  # deferred: a sandbox may never use a credential

        self._running = self._running or Running()
        context = Context(
            name=credential.name,
            environ=self._environ,
            deadline_s=self._deadline_s,
            upstream_ca=self._upstream_ca,
            untrusted=self._untrusted,
            known=self._known,
            running=self._running,
            clock=self._clock,
        )
        try:
            async with asyncio.timeout(self._deadline_s + _GRACE_S):
                return await self._offload.call(lambda: sources.value_of(credential, context))
        except CredentialError as error:
            self._tell_once(error)
            raise
        except OSError as error:  # TimeoutError too: no thread, or one that hangs
            what = error.strerror or f"it did not end within {self._deadline_s:g} s"
            raise CredentialError(f'credential "{credential.name}" cannot be had: {what}') from None
        except Exception as error:  # a bug of ours must not show what it was about
            raise CredentialError(
                f'credential "{credential.name}" cannot be had: this is a bug in cloister ({type(error).__name__})'
            ) from None

    def close(self) -> None:
        """End the programs that still run for a source."""
        if self._running is not None:
            self._running.kill_all()

    def _tell_once(self, error: CredentialError) -> None:
        text = str(error)
        if text not in self._told and len(self._told) < _TOLD_LIMIT:
            self._told.add(text)
            self._tell(text)
