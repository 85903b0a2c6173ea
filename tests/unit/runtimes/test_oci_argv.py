"""Golden command lines of both engines (CLOISTER_GOLDEN=write renews them), and how odd values are written."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from cloister.runtimes import oci_argv, oci_exec_argv
from cloister.runtimes.oci_exec_argv import Names
from cloister.sandbox.spec import Bind, CaBundle, Limits, Mount, SandboxSpec, Tmpfs, Volume
from cloister.values import replace

GOLDEN = Path(__file__).parents[2] / "golden/oci"
NAMES = Names(sandbox="project-0123456789ab-abcdef", project="project-0123456789ab")
HOSTS = {
    "docker": oci_argv.Host(engine="docker", cpus=8),
    "docker-remapped": oci_argv.Host(engine="docker", cpus=2, remapped=True, ipv6=False),
    "podman": oci_argv.Host(engine="podman", cpus=8, init="/usr/bin/tini"),
    "podman-rootless": oci_argv.Host(engine="podman", cpus=8, rootless=True, limits=False, has_init=False),
}
SPEC = SandboxSpec(
    id="project-0123456789ab-abcdef",
    hostname="cloister",
    user_name="ann",
    uid=1001,
    gid=1002,
    home="/home/ann",
    workspace="/home/ann/project",
    cwd="/home/ann/project/src",
    command=("make", "-j", "a b"),
    environment=(("HOME", "/home/ann"),),
    mounts=(
        Tmpfs("/tmp", None, 0o1777, noexec=True),
        Tmpfs("/run/user/1001", 1 << 20, 0o700, owned=True, noexec=True),
        Bind("/state/runs/x.files/3", "/etc/passwd"),
        Bind("/state/home", "/home/ann", writable=True),
        Bind("/home/ann/project", "/home/ann/project", writable=True),
        Bind("/home/ann/project/.git/hooks", "/home/ann/project/.git/hooks"),
    ),
    limits=Limits(memory_bytes=1 << 30, cpus=4.0, pids=100),
)
HOLDER = oci_argv.Holder(
    image="cloister-runtime:0123",
    argv=("/usr/bin/python3", "-I", "-S", "-c", "main()"),
    library_path="/usr/lib",
    directory="/state/runs/x.holder",
    target="/cloister-holder",
    hostname="cloister",
    seccomp="/state/seccomp.json",
)
GATEWAY = oci_argv.Gateway(
    image="cloister-gateway:0123",
    argv=("/usr/bin/python3", "-I", "-S", "-c", "main()"),
    library_path="/usr/lib",
    target="/cloister-holder",
    directory="/run/cloister-gateway",
    seccomp="/state/seccomp.json",
)
AGENT = oci_argv.Agent(image="sha256:abc", seccomp="/state/seccomp.json", environment=7)


def compare(name: str, argv: list[str]) -> None:
    path, text = GOLDEN / f"{name}.txt", "".join(f"{word}\n" for word in argv)
    if os.environ.get("CLOISTER_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", HOSTS)
def test_holder(name: str) -> None:
    compare(f"holder-{name}", oci_argv.run_holder(NAMES, HOLDER, HOSTS[name]))


@pytest.mark.parametrize("name", HOSTS)
def test_agent(name: str) -> None:
    compare(f"agent-{name}", oci_argv.create_agent(NAMES, SPEC, AGENT, HOSTS[name]))


@pytest.mark.parametrize("name", HOSTS)
def test_with_the_gateway_in_a_container(name: str) -> None:
    compare(f"gateway-{name}", oci_argv.run_gateway(NAMES, GATEWAY, HOSTS[name]))
    holder = oci_argv.run_holder(NAMES, replace(HOLDER, volume=NAMES.volume), HOSTS[name])
    assert f"--mount=type=volume,source={NAMES.volume},target=/cloister-holder" in holder
    assert not [word for word in holder if "type=bind" in word]


def test_what_is_made_for_it_is_removed_by_name() -> None:
    made = oci_argv.create_volume(NAMES.volume, sandbox=NAMES.sandbox, project=NAMES.project)
    assert made[-1] == "cloister-project-0123456789ab-abcdef-sockets"
    assert "--label=dev.cloister.project=project-0123456789ab" in made
    assert oci_argv.remove_gateway(NAMES) == [
        ["rm", "--force", "--volumes", *(f"cloister-project-0123456789ab-abcdef-{one}" for one in ("gateway", "filler"))],
        ["volume", "rm", "--force", *(f"cloister-project-0123456789ab-abcdef-{one}" for one in ("sockets", "files"))],
    ]  # fmt: skip


def test_volumes_of_an_engine_elsewhere() -> None:
    """A comma in the workspace's name is no option (CFG-2), and the image gives a volume nothing."""
    mounts = (Volume("work", "/home/ada/a,readonly"), Volume("home", "/home/ada"))
    argv = oci_argv.create_agent(NAMES, replace(SPEC, mounts=mounts), AGENT, HOSTS["docker"])
    assert [word for word in argv if word.startswith("--mount=")] == [
        '--mount=type=volume,source=work,"target=/home/ada/a,readonly",volume-nocopy',
        "--mount=type=volume,source=home,target=/home/ada,volume-nocopy",
    ]
    filler = oci_argv.create_filler("name", "project", "image", {"/place": "work"})
    assert "--mount=type=volume,source=work,target=/place,volume-nocopy" in filler
    assert filler[-2:] != ["--entrypoint=/-", "image"] and filler[-1] == "image"
    assert "--network=none" in filler and "--pull=never" in filler


def test_agent_of_an_image_without_a_shell() -> None:
    agent = replace(AGENT, has_sh=False, gated=False, terminal=True, stdin=True, passed=("KEY",))
    argv = oci_argv.create_agent(NAMES, replace(SPEC, command=("/app", "-x")), agent, HOSTS["docker"])
    assert argv[-3:] == ["--entrypoint=/app", "sha256:abc", "-x"]
    assert {"--tty", "--interactive", "--ulimit=core=0:0", "--env=KEY"} <= set(argv)


def test_exec() -> None:
    argv = oci_exec_argv.execute(
        NAMES, ("true",), directory="/w", terminal=True, environment=9, passed=("A",), has_sh=False
    )
    assert argv == ["exec", "--interactive", "--tty", "--workdir=/w", "--env-file=/dev/fd/9", "--env=A",
                    "cloister-project-0123456789ab-abcdef-agent", "true"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("what", ["holder", "agent", "gateway"])
def test_what_every_container_is_denied(name: str, what: str) -> None:
    """Nothing is allowed by absence, and no option can undo one of these."""
    argv = {
        "holder": oci_argv.run_holder(NAMES, HOLDER, HOSTS[name]),
        "agent": oci_argv.create_agent(NAMES, SPEC, AGENT, HOSTS[name]),
        "gateway": oci_argv.run_gateway(NAMES, GATEWAY, HOSTS[name]),
    }[what]
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only", "--pull=never",
            "--security-opt=seccomp=/state/seccomp.json", "--ipc=private"} <= set(argv)  # fmt: skip
    added = {word for word in argv if word.startswith("--cap-add")}
    assert added == ({"--cap-add=NET_ADMIN", "--cap-add=NET_BIND_SERVICE"} if what == "holder" else set())
    networks = [word for word in argv if word.startswith(("--network", "--net=", "--publish", "--link"))]
    joined = f"--network=container:{NAMES.holder}"
    assert networks == {"holder": ["--network=none"], "agent": [joined], "gateway": []}[what]
    assert not [
        word for word in argv if word.startswith(("--privileged", "--device", "--pid=", "--uts", "--volume"))
    ]


@pytest.mark.parametrize("path", ["/a,b", '/a"b', "/a=b", "/a:b", "/a b", "/a,readonly,source=/etc", "/ä"])
def test_a_mount_is_one_line_of_csv(path: str) -> None:
    """CFG-2: a path cannot become an option; read back as the engines do, with a CSV reader."""
    (row,) = csv.reader([oci_argv.mount(path, path, writable=False)])
    assert row == ["type=bind", f"source={path}", f"target={path}", "readonly"]


def test_the_environment_file() -> None:
    text, others = oci_exec_argv.environment_file((("A", "x y "), ("KEY", "1\n2"), ("B", ""), ("#C", "1")))
    assert (text, others) == (b"A=x y \nB=\n", (("KEY", "1\n2"),))


@pytest.mark.parametrize("mount", [CaBundle("/etc/ssl/cert.pem")])
def test_what_cannot_be_rendered_is_an_error(mount: Mount) -> None:
    with pytest.raises(TypeError, match="cannot be given"):
        oci_argv.create_agent(NAMES, replace(SPEC, mounts=(mount,)), AGENT, HOSTS["docker"])
