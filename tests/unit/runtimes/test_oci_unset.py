"""Variables of an image that do not hold in a sandbox: each engine takes them away in its own words."""

from __future__ import annotations

import pytest

from cloister.runtimes.oci_argv import Agent, Host, create_agent
from cloister.runtimes.oci_exec_argv import Names
from cloister.sandbox.spec import Limits, SandboxSpec

SPEC = SandboxSpec(
    id="s1", hostname="h", user_name="ada", uid=1000, gid=1000, home="/home/ada", workspace="/w", cwd="/w",
    command=("true",), environment=(), mounts=(), limits=Limits(), unset=("UV_NO_BUILD",),
)  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "option"), [("docker", "--env=UV_NO_BUILD"), ("podman", "--unsetenv=UV_NO_BUILD")]
)
def test_what_does_not_hold_is_taken_away(engine: str, option: str) -> None:
    agent = Agent(image="i", seccomp="/s", environment=5)
    argv = create_agent(Names(sandbox="s1", project="p"), SPEC, agent, Host(engine=engine))
    assert option in argv[: argv.index("i")]
    assert [word for word in argv if "UV_NO_BUILD" in word] == [option]
