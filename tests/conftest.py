"""What all tests share: how properties are tried, the engines and the installed command, one of each for a whole run.

Properties are tried with the same inputs every time, at any speed: nothing fails by chance. New ones: `make fuzz`.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.engines import docker, engine_base, podman, remote_docker, rootless_podman  # noqa: F401  # fixtures, here and below
from tests.world import authority, http_origin, installed, line_origin, origin, user  # noqa: F401

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

BY_ENGINE = "loadgroup"  # the value of pytest-xdist's --dist

settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

# Who starts the tests in the background has these ignored (nohup(1), `&` of a shell without job control), and what the
# tests start would inherit that: cloister leaves ignored what was ignored.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling | None:
    """With `--dist loadgroup` one worker has Podman's tests, another Docker's: an engine is started once a run still."""
    if config.getvalue("dist") != BY_ENGINE:
        return None
    from tests.by_engine import ByEngine  # only where there is xdist

    return ByEngine(config, log)
