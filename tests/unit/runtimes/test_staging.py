"""Who the agent is on the host when cloister runs as root, and what it sees of root's files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cloister.errors import HostError
from cloister.runtimes import staging
from cloister.sandbox.spec import Bind, Limits, SandboxSpec, Tmpfs
from cloister.system import linux


def spec(workspace: Path, *binds: Bind) -> SandboxSpec:
    return SandboxSpec(
        id="s", hostname="h", user_name="agent", uid=1000, gid=1000, home="/root", workspace=str(workspace),
        cwd=str(workspace), command=(), environment=(), limits=Limits(),
        mounts=(Bind("/usr", "/usr"), Tmpfs("/tmp"), Bind(str(workspace), str(workspace), writable=True), *binds),
    )  # fmt: skip


def test_shared_directories_are_bound_directly(tmp_path: Path) -> None:
    plan = staging.plan(spec(tmp_path, Bind("/etc/alternatives", "/etc/alternatives"), Bind("/opt", "/opt")))
    assert [tree.source for tree in plan.trees] == [str(tmp_path)]


def test_what_lies_in_a_staged_tree_is_found_there(tmp_path: Path) -> None:
    (tmp_path / "w/.git").mkdir(parents=True)
    (tmp_path / "w-other").mkdir()
    workspace = tmp_path / "w"
    described = spec(
        workspace,
        Bind(f"{workspace}/.git", f"{workspace}/.git"),
        Bind(str(tmp_path / "w-other"), "/root"),
        Bind(str(tmp_path / "gone"), "/gone", optional=True),
    )
    plan = staging.plan(described)
    assert len(plan.trees) == 2
    sources = {m.target: m.source for m in staging.rebase(described, plan).mounts if isinstance(m, Bind)}
    assert sources[f"{workspace}/.git"] == sources[str(workspace)] + "/.git"
    assert sources["/root"] not in (sources[str(workspace)], str(tmp_path / "w-other"))
    assert sources["/usr"] == "/usr"
    assert sources["/gone"] == str(tmp_path / "gone")
    assert {source.rsplit("/", 1)[0] for source in sources.values() if source.startswith("/run")} == {
        "/run", sources[str(workspace)],
    }  # fmt: skip


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="as root only")
@pytest.mark.parametrize(("owner", "host_uid"), [(0, staging.AGENT_HOST_ID), (4321, 4321)])
def test_the_agent_is_never_root_of_the_host(tmp_path: Path, owner: int, host_uid: int) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    os.chown(workspace, owner, owner)
    plan = staging.plan(spec(workspace))
    assert (plan.uid, plan.gid) == (host_uid, host_uid)


@pytest.mark.root
@pytest.mark.sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="as root only")
def test_owners_are_mapped_and_nothing_appears_on_the_host(tmp_path: Path) -> None:
    """Root's files are the agent's own in the staged mount; on disk, what the agent makes is root's."""
    workspace = tmp_path / "w"
    workspace.mkdir()
    (workspace / "private").write_text("x")
    (workspace / "private").chmod(0o600)
    (workspace / "other").write_text("x")
    (workspace / "other").chmod(0o600)
    os.chown(workspace / "other", 4321, 4321)
    plan = staging.plan(spec(workspace))
    report, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            staging.enter(plan)
            staged = plan.trees[0].staged
            with open(f"{staged}/made", "w") as file:
                file.write("agent")
            try:
                other = Path(f"{staged}/other").read_text()
            except PermissionError:
                other = "refused"
            os.write(write, f"{os.getresuid()} {Path(f'{staged}/private').read_text()} {other}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(report) as file:
        answer = file.read()
    os.waitpid(child, 0)
    agent = staging.AGENT_HOST_ID
    assert answer == f"{(agent, agent, agent)} x refused"
    assert (workspace / "made").stat().st_uid == 0
    # Other programs of the host mount and unmount meanwhile: what counts is what this could have left.
    targets = {line.split(" ")[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
    assert not targets & {tree.staged for tree in plan.trees}
    assert not [target for target in targets if target.startswith(str(tmp_path))]
    assert subprocess.run(["findmnt", "-n", "/run/0"], capture_output=True, check=False).returncode != 0


def test_a_file_system_without_mapping_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never on as uid 0: the reason and the way out are named instead."""

    def refuse(_tree: int, _namespace: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(linux, "mount_setattr_idmap", refuse)
    with pytest.raises(HostError) as caught:
        staging._map(3, 4, "/srv/nfs/project")
    assert "/srv/nfs/project" in caught.value.brief
    assert "ordinary user" in caught.value.resolution
