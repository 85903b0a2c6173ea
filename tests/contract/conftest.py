"""One world for each runtime: the same command, project and configuration, and whoever runs it.

A sandbox that stays is made once for each runtime and test module (`kept`): what only looks into one is tried there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines import IMAGE, Engine
from tests.fakes.origins import Authority, HttpsOrigin, LineOrigin
from tests.world import Cloister, Identity, Result

ROOT = Identity(name="root", uid=0, gid=0)
# Name → runtime, the fixture of its engine, whether root runs it, where the gateway runs.
RUNTIMES = {
    "embedded": ("embedded", "", False, "host"),
    "docker": ("docker", "docker", False, "host"),
    "docker-root": ("docker", "docker", True, "host"),
    "docker-gateway": ("docker", "docker", False, "container"),
    "docker-vm": ("docker", "docker", False, "host"),  # its client says what one of a virtual machine's says
    "docker-remote": ("docker", "remote_docker", False, "host"),  # on another machine, as far as files go
    "podman": ("podman", "rootless_podman", False, "host"),
    "podman-root": ("podman", "podman", True, "host"),
}
PARAMETERS = [
    pytest.param(name, marks=pytest.mark.engine if engine else pytest.mark.sandbox)
    for name, (_, engine, _, _) in RUNTIMES.items()
]
# A fresh one for each test costs a start; those that matter there are in test_outpost.py and test_remote.py.
FRESH = [one for one in PARAMETERS if one.values not in (("docker-vm",), ("docker-remote",))]


@dataclass(frozen=True, kw_only=True)
class World:
    """A scratch home and project, whose configuration names the runtime. `engine` is None for the embedded one."""

    name: str
    runtime: str
    cloister: Cloister
    engine: Engine | None
    gateway: str = "host"

    @property
    def is_remote(self) -> bool:
        """Whether the workspace is a copy on another machine, which the host sees by `diff` and `cp` only."""
        return self.name == "docker-remote"

    def containers(self) -> list[str]:
        """Names of this world's containers, running or not."""
        if self.engine is None:
            return []
        label = "label=dev.cloister.project"
        listed = self.engine("ps", "--all", f"--filter={label}", "--format={{.Names}}").split()
        projects = self.cloister.home / ".local/state/cloister/projects"
        mine = {path.name for path in projects.iterdir()} if projects.exists() else set()
        return [name for name in listed if any(f"cloister-{one}-" in name for one in mine)]

    def volumes(self) -> list[str]:
        """Names of the volumes that were made for this world's gateways."""
        if self.engine is None:
            return []
        listed = self.engine(
            "volume", "ls", "--filter=label=dev.cloister.project", "--format={{.Name}}"
        ).split()
        projects = self.cloister.home / ".local/state/cloister/projects"
        mine = {path.name for path in projects.iterdir()} if projects.exists() else set()
        return [name for name in listed if any(f"cloister-{one}-" in name for one in mine)]

    def exec(self, *command: str, **how: object) -> Result:
        return self.cloister("exec", "--", *command, **how)  # type: ignore[arg-type]  # the options of __call__

    def sh(self, script: str) -> Result:
        return self.exec("/bin/sh", "-c", script)

    def perl(self, script: str) -> Result:
        """What every image of Debian has, as has this host."""
        return self.exec("/usr/bin/perl", "-e", script)


def _world(name: str, request: pytest.FixtureRequest, base: Path) -> Iterator[World]:
    runtime, engine_name, as_root, gateway = RUNTIMES[name]
    engine: Engine | None = request.getfixturevalue(engine_name) if engine_name else None
    identity = ROOT if as_root else request.getfixturevalue("user")
    base.chmod(0o755)
    cloister = Cloister(
        command=request.getfixturevalue("installed"),
        identity=identity,
        base=base,
        extra_environment={
            key: value for key, value in (engine.environment if engine else {}).items() if key != "HOME"
        },
    )
    cloister.directory(cloister.project)
    if name == "docker-vm":
        _be_in_a_machine(cloister)
    authority_: Authority = request.getfixturevalue("authority")
    https: HttpsOrigin = request.getfixturevalue("origin")
    http: HttpsOrigin = request.getfixturevalue("http_origin")
    line: LineOrigin = request.getfixturevalue("line_origin")
    ca = cloister.write(cloister.home / "ca.pem", authority_.pem)
    cloister.configure(
        f"""
[sandbox]
runtime = "{runtime}"
image = "{IMAGE}"
gateway = "{gateway}"
workspace = "{"volume" if name == "docker-remote" else "bind"}"
memory = "512m"
pids = 200

[network]
allow = ["plain.example.test", "origin.example.test", "tcp://line.example.test:2222", "tcp://*.wild.example.test:2223"]
upstream_ca = ["{ca}"]

[network.hosts]
"origin.example.test" = "127.0.0.1:{https.port}"
"plain.example.test" = "127.0.0.1:{http.port}"
"evil.example.test" = "127.0.0.1:{http.port}"
"line.example.test" = "127.0.0.1:{line.port}"
"a.wild.example.test" = "127.0.0.1:{line.port}"
"""
    )
    world = World(name=name, runtime=runtime, cloister=cloister, engine=engine, gateway=gateway)
    yield world
    cloister("stop", "--all", timeout_s=120)
    if engine is not None and (left := world.containers()):
        engine("rm", "--force", *left, check=False)
    if engine is not None and (left := world.volumes()):
        engine("volume", "rm", "--force", *left, check=False)
    shutil.rmtree(base, ignore_errors=True)


def _be_in_a_machine(cloister: Cloister) -> None:
    """A client first on PATH whose engine has another kernel. So cloister must do without all that needs this one."""
    program = shutil.which("docker")
    client = (
        f'#!/bin/sh\nif [ "$1" = info ]; then {program} "$@" | '
        'sed \'s/"KernelVersion":"[^"]*"/"KernelVersion":"6.6.0-linuxkit"/\'\n'
        f'else exec {program} "$@"; fi\n'
    )
    cloister.write(cloister.base / "bin/docker", client, 0o755)
    cloister.extra_environment["PATH"] = f"{cloister.base}/bin:/usr/bin:/bin"


@pytest.fixture(params=FRESH)
def world(request: pytest.FixtureRequest, scratch: Callable[[], Path]) -> Iterator[World]:
    """A fresh world, in which nothing runs."""
    yield from _world(request.param, request, scratch())


@pytest.fixture(scope="module", params=PARAMETERS)
def kept(request: pytest.FixtureRequest, scratch: Callable[[], Path]) -> Iterator[World]:
    """A world in which a sandbox runs."""
    for made in _world(request.param, request, scratch()):
        project = made.cloister.project
        made.cloister.write(project / "src/main.txt", "hello\n")
        made.cloister.write(project / ".env", "SECRET=1\n")
        made.cloister.directory(project / ".git/hooks")
        made.cloister.write(project / ".git/HEAD", "ref: refs/heads/main\n")
        made.cloister.directory(project / ".git/objects")
        made.cloister.directory(project / ".git/refs")
        up = made.cloister("up", timeout_s=120)
        assert up.code == 0, up
        yield made


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes directories that an ordinary user can reach, on a disk: tmpfs maps no owners on older kernels."""
    import tempfile

    return lambda: Path(tempfile.mkdtemp(prefix="cloister-contract-", dir="/var/tmp"))
