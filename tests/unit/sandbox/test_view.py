"""What a sandbox sees of its credentials: files with placeholders in its home, and git's configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cloister.sandbox import view
from cloister.sandbox.environment import SSH_AGENT
from cloister.sandbox.facts import Facts
from cloister.sandbox.protect import Placeholder, Protection
from cloister.sandbox.spec import Bind, Data, SandboxSpec, Tmpfs

FILES = {".npmrc": "//r/:_authToken=npm_x\n", ".config/gh/hosts.yml": "github.com:\n"}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The private home as it lies on the host."""
    directory = tmp_path / "private"
    directory.mkdir()
    return directory


def spec_of(home: Path, plan: dict[str, Any], *, source: Path | None = None, cwd: str = "") -> SandboxSpec:
    project = home.parent / "project"
    project.mkdir(exist_ok=True)
    return view.build(
        plan=plan,
        facts=Facts(
            uid=1000, gid=1000, user_name="ada", home="/home/ada", environ={"SSH_AUTH_SOCK": "/x"}, path=()
        ),
        scan=Protection(workspace=str(project)),
        sandbox_id="s1",
        command=("true",),
        cwd=f"{project}{cwd}",
        public_directory=str(home.parent),
        home_directory=str(home),
        workspace_source=str(source) if source else None,
    )


def data_of(spec: SandboxSpec) -> dict[str, Data]:
    return {mount.target: mount for mount in spec.mounts if isinstance(mount, Data)}


def test_files_lie_upon_the_home_for_the_owner_alone(home: Path) -> None:
    spec = spec_of(home, {"sandbox": {"files": FILES}})
    found = data_of(spec)
    assert found["/home/ada/.npmrc"] == Data("/home/ada/.npmrc", FILES[".npmrc"].encode(), 0o400)
    targets = [mount.target for mount in spec.mounts]
    own = next(i for i, m in enumerate(spec.mounts) if isinstance(m, Bind) and m.target == "/home/ada")
    assert own < targets.index("/home/ada/.npmrc") < targets.index("/home/ada/.config/gh/hosts.yml")


def test_what_the_agent_has_put_there_stays_on_disk(home: Path, tmp_path: Path) -> None:
    (home / ".npmrc").write_text("mine")
    victim = tmp_path / "victim"
    victim.mkdir()
    (home / ".config").symlink_to(victim)
    spec_of(home, {"sandbox": {"files": FILES}})
    assert (home / ".npmrc").read_text() == "mine"
    assert os.listdir(victim) == [], "a mount point was made through the sandbox's link"
    assert (home / ".config/gh/hosts.yml").is_file()
    assert (home / ".config.in-the-way").is_symlink()


def test_gits_configuration_is_there_even_without_a_forge(home: Path) -> None:
    plain = data_of(spec_of(home, {"sandbox": {}}))["/etc/gitconfig"].content
    assert plain == b"[credential]\n\thelper =\n"
    forge = data_of(spec_of(home, {"sandbox": {"ssh_to_https": ["github.com"]}}))["/etc/gitconfig"].content
    assert b'[url "https://github.com/"]\n\tinsteadOf = git@github.com:\n' in forge


@pytest.mark.parametrize("signing", [None, {}, {"agent": False}, {"agent": 1}, {"agent": "true"}])
def test_no_agent_unless_it_is_forwarded(home: Path, signing: object) -> None:
    assert "SSH_AUTH_SOCK" not in dict(spec_of(home, {"ssh": signing}).environment)


def test_the_agents_socket_is_the_filtered_one(home: Path) -> None:
    assert dict(spec_of(home, {"ssh": {"agent": True}}).environment)["SSH_AUTH_SOCK"] == SSH_AGENT


def test_what_package_managers_are_told(home: Path) -> None:
    told = {"environment": {"UV_NO_BUILD": "1"}, "files": {"/etc/uv/uv.toml": "no-build = true\n"}}
    spec = spec_of(home, {"packages": told})
    assert dict(spec.environment)["UV_NO_BUILD"] == "1"
    assert data_of(spec)["/etc/uv/uv.toml"].content == b"no-build = true\n"
    out = spec_of(home, {"packages": {"files": {"/etc/uv/uv.toml": ""}}})
    assert "/etc/uv/uv.toml" not in data_of(out)


def test_a_private_copy_is_seen_at_the_projects_own_path(home: Path, tmp_path: Path) -> None:
    project, source = tmp_path / "project", tmp_path / "copy"
    (project / "only/here").mkdir(parents=True)
    (source / "both").mkdir(parents=True)
    spec = spec_of(home, {}, source=source, cwd="/only/here")
    assert Bind(str(source), str(project), writable=True) in spec.mounts
    assert not [mount for mount in spec.mounts if isinstance(mount, Bind) and mount.source == str(project)]
    assert spec.cwd == str(project), "the copy has no such directory"
    assert spec_of(home, {}, source=source, cwd="/both").cwd == f"{project}/both"
    assert spec_of(home, {}, cwd="/only/here").cwd == f"{project}/only/here"


def test_go_is_told_that_a_placeholder_is_no_repository(home: Path) -> None:
    """Else every `go build` in a project without git fails: "error obtaining VCS status"."""
    scan = Protection(workspace="/w", placeholders=(Placeholder("/w/.git"),))
    settings = view.Settings({"packages": {"environment": {"GOPROXY": "p"}}})
    assert view.package_environment(settings, scan) == {"GOFLAGS": "-buildvcs=false", "GOPROXY": "p"}
    assert view.package_environment(settings, Protection(workspace="/w")) == {"GOPROXY": "p"}
    below = Protection(workspace="/w", placeholders=(Placeholder("/w/sub/.git"),))
    assert "GOFLAGS" not in view.package_environment(settings, below)


@pytest.mark.parametrize("memory_bytes", [64 << 20, 8 << 30])
def test_fs_7_what_is_in_memory_is_less_than_the_limit(home: Path, memory_bytes: int) -> None:
    spec = spec_of(home, {"sandbox": {"memory_bytes": memory_bytes}})
    sizes = [mount.size_bytes for mount in spec.mounts if isinstance(mount, Tmpfs)]
    assert len(sizes) >= 4
    assert sum(size or 1 << 60 for size in sizes) < memory_bytes
