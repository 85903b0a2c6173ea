"""What cannot serve is refused by name, with what to type, before anything is made: engines on another machine."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cloister.errors import HostError
from cloister.runtimes.engine import Engine
from cloister.session import container_place
from cloister.values import replace

FAR = Engine(
    name="docker", program="/usr/bin/docker", environment={}, local=False, endpoint="ssh://ada@far",
    machine=os.uname().machine,
)  # fmt: skip
PLAN: dict[str, object] = {"sandbox": {"workspace": "volume"}}


def test_a_copy_of_the_workspace_is_no_matter_where() -> None:
    for kind in ("volume", "clone"):
        container_place._check(FAR, {"sandbox": {"workspace": kind}}, elsewhere=True)


@pytest.mark.parametrize(
    ("changes", "plan", "brief", "resolution"),
    [
        ({"confidential": False, "endpoint": "tcp://far:2375"}, PLAN, "everybody on the way to tcp://far:2375 could read", "ssh://"),
        ({"machine": "riscv128"}, PLAN, "another kind of processor (riscv128)", "--runtime embedded"),
        ({"rootless": True}, PLAN, "rootless Docker", "--runtime podman"),
        ({"name": "podman"}, PLAN, "podman runs its containers on another machine", "--runtime embedded"),
        ({}, {"sandbox": {"workspace": "bind"}}, "cannot show a sandbox this directory", 'workspace = "volume"'),
        ({}, {"sandbox": {}}, "cannot show a sandbox this directory", 'workspace = "volume"'),
        ({}, {"sandbox": {"workspace": "volume", "read_only": ["/opt"]}}, "files of this host", "cloister cp"),
        ({}, {**PLAN, "services": [{"name": "db"}]}, "cannot be reached from here", "[network.hosts]"),
        ({}, {**PLAN, "ssh": {"agent": True}}, "an SSH agent cannot be forwarded", "[ssh] agent"),
    ],
)  # fmt: skip
def test_what_it_cannot_have(
    changes: dict[str, Any], plan: dict[str, object], brief: str, resolution: str
) -> None:
    with pytest.raises(HostError) as refused:
        container_place._check(replace(FAR, **changes), plan, elsewhere=True)
    assert brief in refused.value.brief
    assert resolution in (refused.value.resolution or "")
