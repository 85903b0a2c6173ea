"""Who runs which test of an engine: one of pytest-xdist's workers all of Docker's, another all of Podman's.

So each engine is started once a run, and what is made once a module is made once. (`xdist_group` marks would say the same;
pytest-xdist 3.8 writes them into node ids, which pytest 9 keeps elsewhere.)

Rule 1: a test that needs Podman says so in its name or parameter.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class ByEngine(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Hands out the tests of one engine together, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return "podman" if "podman" in nodeid else "docker"
