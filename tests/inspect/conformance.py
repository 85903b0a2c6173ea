"""inspect-ai's own checks of a sandbox environment, and ours of the adapter. Run by pytest beside inspect-ai.

`HOME` is a scratch home, whose configuration allows everything; `CLOISTER_TEST_RUNTIME` names a runtime.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from inspect_ai.util import SandboxEnvironment, SandboxUserUnsupportedError
from inspect_ai.util._sandbox.self_check import *  # noqa: F403

from cloister.inspect_sandbox import place
from cloister.inspect_sandbox.environment import CloisterSandboxEnvironment
from cloister.inspect_sandbox.settings import CloisterConfig

pytestmark = pytest.mark.anyio
CANNOT = {"test_exec_as_user": "it adds a user as root: there is no root in a sandbox of cloister's"}
CONFIG = CloisterConfig(
    runtime=os.environ.get("CLOISTER_TEST_RUNTIME"), image=os.environ.get("CLOISTER_TEST_IMAGE")
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def started(anyio_backend: str) -> AsyncIterator[SandboxEnvironment]:
    environments = await CloisterSandboxEnvironment.sample_init("conformance", CONFIG, {})
    (where,) = place.left()
    yield environments["default"]
    await CloisterSandboxEnvironment.sample_cleanup("conformance", CONFIG, environments, False)
    assert not Path(where.base).exists()
    assert not Path(where.project().state).exists()
    assert list(place.left()) == []


@pytest.fixture
async def sandbox_env(started: SandboxEnvironment, request: pytest.FixtureRequest) -> SandboxEnvironment:
    reason = CANNOT.get(request.node.name)
    if reason is not None:
        request.node.add_marker(
            pytest.mark.xfail(raises=SandboxUserUnsupportedError, reason=reason, strict=True)
        )
    return started


async def test_fs_5_a_link_is_followed_within_the_sandbox(sandbox_env: SandboxEnvironment) -> None:
    secret = Path(os.environ["HOME"], "secret")
    secret.write_text("hunter2")
    assert (await sandbox_env.exec(["ln", "-sf", str(secret), "link"])).success
    with pytest.raises(FileNotFoundError):
        await sandbox_env.read_file("link")
    await sandbox_env.write_file("link", "written")  # in the sandbox's own home, if at all
    assert secret.read_text() == "hunter2"


async def test_fs_3_what_the_agent_writes_does_not_run_on_the_host(sandbox_env: SandboxEnvironment) -> None:
    planted = (
        "open('/var/tmp/planted','w').write(open('/proc/self/cgroup').read())\nraise SystemExit('planted')"
    )
    for name in ("cloister/__main__.py", "sitecustomize.py"):
        await sandbox_env.write_file(name, planted)
    where = (await sandbox_env.exec(["pwd"])).stdout.strip()
    done = await sandbox_env.exec(["true"], env={"PYTHONPATH": where, "PATH": where})
    assert done.returncode == 127, done  # there: its PATH is the one that was given


async def test_k_7_a_daemon_ends_with_the_command_that_is_late(sandbox_env: SandboxEnvironment) -> None:
    await sandbox_env.write_file("daemon.sh", 'echo "$$" >> pids; exec sleep 1000')
    command = ["sh", "-c", "setsid sh daemon.sh </dev/null >/dev/null 2>&1 & sleep 1000"]
    with pytest.raises(TimeoutError):
        await sandbox_env.exec(command, timeout=2)
    (pid,) = (await sandbox_env.read_file("pids")).split()
    assert not (await sandbox_env.exec(["test", "-e", f"/proc/{pid}"])).success


async def test_k_7_a_cancelled_command_ends(sandbox_env: SandboxEnvironment) -> None:
    name = uuid.uuid4().hex
    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(
                sandbox_env.exec, ["sh", "-c", f"echo $$ > {name}; trap '' TERM; while :; do sleep 1; done"]
            )
            while not (await sandbox_env.exec(["test", "-s", name])).success:
                pass
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught
    pid = (await sandbox_env.read_file(name)).strip()
    assert not (await sandbox_env.exec(["test", "-e", f"/proc/{pid}"])).success


async def test_cfg_the_users_own_configuration_does_not_count(sandbox_env: SandboxEnvironment) -> None:
    shown = (await sandbox_env.exec(["env"])).stdout
    assert "COLOUR" not in shown  # which it sets


async def test_nothing_that_inspect_has_in_its_environment_is_there(sandbox_env: SandboxEnvironment) -> None:
    os.environ["HOST_SECRET"] = "hunter2"
    assert "hunter2" not in (await sandbox_env.exec(["env"])).stdout


async def test_values_are_not_shown_by_arguments(sandbox_env: SandboxEnvironment) -> None:
    """While the command runs, no process of the host has one in its command line."""
    value = uuid.uuid4().hex
    async with anyio.create_task_group() as group:
        group.start_soon(
            sandbox_env.exec, ["sh", "-c", "touch ready; sleep 1000"], None, None, {"TOKEN": value}
        )
        while not (await sandbox_env.exec(["test", "-e", "ready"])).success:
            pass
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        group.cancel_scope.cancel()
    assert not [line for line in lines if value.encode() in line]


async def test_git_works_in_the_workspace(sandbox_env: SandboxEnvironment) -> None:
    if (await sandbox_env.exec(["git", "--version"])).success:
        done = await sandbox_env.exec(["git", "init", "-q", "repository"])
        assert done.success, done
        assert (await sandbox_env.exec(["git", "init", "-q"])).success


async def test_a_shell_there(sandbox_env: SandboxEnvironment) -> None:
    connection = await sandbox_env.connection()
    assert (connection.type, " shell -C " in connection.command) == ("cloister", True)
    with pytest.raises(SandboxUserUnsupportedError, match="one user, without privileges"):
        await sandbox_env.connection(user="root")


async def test_a_start_that_fails_leaves_nothing(started: SandboxEnvironment) -> None:
    before = [where.base for where in place.left()]
    with pytest.raises(RuntimeError, match="nowhere"):
        await CloisterSandboxEnvironment.sample_init("t", CloisterConfig(profile="nowhere"), {})
    assert [where.base for where in place.left()] == before


async def test_a_cancelled_start_leaves_nothing(started: SandboxEnvironment) -> None:
    before = [where.base for where in place.left()]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await CloisterSandboxEnvironment.sample_init("t", CONFIG, {})
    assert [where.base for where in place.left()] == before


async def test_clean_up_of_what_a_killed_evaluation_left(started: SandboxEnvironment) -> None:
    environments = await CloisterSandboxEnvironment.sample_init("t", CONFIG, {})
    left = environments["default"].as_type(CloisterSandboxEnvironment)
    where = left._place
    await CloisterSandboxEnvironment.cli_cleanup(where.name)
    assert not Path(where.base).exists()
    assert not where.lives()
    with pytest.raises(ConnectionError):
        await left.connection()
