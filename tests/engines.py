"""Container engines of the tests' own: a private dockerd, and podman with its own storage, as root and as a user.

The fixtures docker, remote_docker, engine_base, podman and rootless_podman are in tests/conftest.py: one of each for a whole run.

Rule 1: nothing of the machine's engines is touched: own data root, exec root, socket, networks; no firewall rule.
Rule 2: started once a run, at the first test that asks, and ended by pid. If pytest is killed, dockerd ends too.
Rule 3: no registry: the image IMAGE is a Debian that mmdebstrap makes once, kept in .cache/images.
Rule 4: an engine that is there and does not start is a failure, with its log. One that is missing is a failure in CI
        and a skip with its reason elsewhere (`make test` installs them).

For development, CLOISTER_TEST_DOCKER=unix:///… names a dockerd that runs already and has IMAGE.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from cloister.doctor.engines import RUN_ROOT_CHARACTERS
from tests.world import Identity

IMAGE = "cloister-test-base"
BASE = Path(__file__).parents[1] / ".cache/images/base.tar"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUNNING = "CLOISTER_TEST_DOCKER"
PACKAGES = ("procps",)  # beside the minimal system: ps
_START_S = 60.0
_CLIENT_S = 120.0
_STORAGE_BYTES = 6 << 30  # of an engine at most: three images of ours with their layers take 3 GB


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A started engine. `environment` is what its client needs; `prefix` becomes its user."""

    program: str  # "docker" or "podman"
    environment: Mapping[str, str]
    prefix: tuple[str, ...] = ()
    rootless: bool = False

    def __call__(self, *arguments: str, stdin: bytes | None = None, check: bool = True) -> str:
        """Run a command of its client; what it printed."""
        done = subprocess.run(
            [*self.prefix, self.program, *arguments],
            env={"PATH": PATH, **self.environment},
            cwd="/",
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=_CLIENT_S,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{self.program} {arguments}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode(errors="replace").strip()


@pytest.fixture(scope="session")
def engine_base() -> Path:
    """The root file system of IMAGE, as a tar."""
    return base_image()


def base_image() -> Path:
    """The same, without a test."""
    if not BASE.exists():
        _need("mmdebstrap")
        BASE.parent.mkdir(parents=True, exist_ok=True)
        part = BASE.with_suffix(f".{os.getpid()}.tar")
        argv = [
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            "--quiet",
            _suite(),
            str(part),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            part.unlink(missing_ok=True)
            pytest.fail(f"mmdebstrap could not make the image: {done.stderr[-3000:]}")
        part.rename(BASE)
    return BASE


@pytest.fixture(scope="session")
def docker() -> Iterator[Engine]:
    """A dockerd with IMAGE."""
    with started_docker() as engine:
        yield engine


@contextmanager
def started_docker() -> Iterator[Engine]:
    """The same, without a test (bench/containers.py)."""
    running = os.environ.get(RUNNING)
    if running:
        yield Engine(program="docker", environment={"DOCKER_HOST": running, "HOME": "/nonexistent"})
        return
    _need("docker", "dockerd", "setpriv")
    if os.geteuid() != 0:
        _missing("a private dockerd needs root")
    with _directory("docker") as base, _dockerd(base) as engine:
        engine("import", str(base_image()), IMAGE)
        yield engine
        _remove_containers(engine)


@pytest.fixture(scope="session")
def remote_docker(engine_base: Path) -> Iterator[Engine]:
    """A dockerd as one of another machine is: reached over TCP, and with no file of this host but its own."""
    _need("docker", "dockerd", "setpriv", "unshare")
    if os.geteuid() != 0:
        _missing("a private dockerd needs root")
    with _directory("remote") as base, _dockerd(base, port=_free_port()) as engine:
        engine("import", str(engine_base), IMAGE)
        yield engine
        _remove_containers(engine)


# $1: its directory, which it sees at /mnt. What the tests and their users have of this host's files is hidden.
_ELSEWHERE = """\
set -e
mount --make-rprivate /
mount --bind "$1" /mnt
for hidden in /tmp /var/tmp /home /root; do mount -t tmpfs tmpfs "$hidden"; done
shift
exec "$@"
"""


@contextmanager
def _dockerd(base: Path, port: int | None = None) -> Iterator[Engine]:
    """With a `port`, in a mount namespace of its own, and listening on the loopback too."""
    log = base / "log"
    own, elsewhere = (str(base), []) if port is None else ("/mnt", ["--host", f"tcp://127.0.0.1:{port}"])
    around = [] if port is None else ["unshare", "--mount", "sh", "-c", _ELSEWHERE, "sh", str(base)]
    address = f"unix://{base}/docker.sock" if port is None else f"tcp://127.0.0.1:{port}"
    # Its own bridge and addresses, and no iptables: Rule 1. (`--bridge=none` would delete the machine's docker0.)
    number = (os.getpid() + (port is not None)) % 200 + 20
    bridge, block = f"clt{os.getpid()}{'' if port is None else 'r'}", f"10.{number}"
    argv = [
        "setpriv", "--pdeathsig=TERM", *around, "dockerd", "--data-root", f"{own}/data", "--exec-root", f"{own}/exec",
        "--pidfile", f"{own}/pid", "--host", f"unix://{own}/docker.sock", *elsewhere,
        "--bridge", bridge, "--iptables=false", "--ip6tables=false",
        "--default-address-pool", f"base={block}.128.0/17,size=24",
    ]  # fmt: skip
    with _bridge(bridge, f"{block}.0.1/24"), log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={"PATH": PATH}, cwd="/"
        )
        engine = Engine(program="docker", environment={"DOCKER_HOST": address, "HOME": str(base)})
        try:
            end = time.monotonic() + _START_S
            while not engine("version", "--format", "{{.Server.Version}}", check=False):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail(f"dockerd does not start:\n{log.read_text(errors='replace')[-4000:]}")
                with _suppress_timeout():
                    process.wait(0.05)  # until it ends, or it is time to ask again
            base.chmod(0o711)
            (base / "docker.sock").chmod(0o666)  # for the tests' ordinary user
            yield engine
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _bridge(name: str, address: str) -> Iterator[None]:
    """A bridge that is there as long as the engine is."""
    for arguments in (
        ("link", "add", name, "type", "bridge"),
        ("address", "add", address, "dev", name),
        ("link", "set", name, "up"),
    ):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False, capture_output=True)


@pytest.fixture(scope="session")
def podman(engine_base: Path) -> Iterator[Engine]:
    """podman as root, with IMAGE."""
    if os.geteuid() != 0:
        _missing("podman as root needs root")
    _need("podman")
    with _directory("podman") as base:
        yield from _podman(base, engine_base, 0, prefix=(), ulimits=("nofile=1024:1024", "nproc=4096:4096"))


@pytest.fixture(scope="session")
def rootless_podman(engine_base: Path, user: Identity) -> Iterator[Engine]:
    """podman as the tests' ordinary user (tests/world.py), with IMAGE."""
    _need("podman", "newuidmap")
    with _directory("rootless") as base:
        yield from _podman(
            base, engine_base, user.uid, prefix=tuple(user.prefix), ulimits=("nofile=1024:1024",)
        )


def _podman(
    base: Path, tar: Path, uid: int, *, prefix: tuple[str, ...], ulimits: tuple[str, ...]
) -> Iterator[Engine]:
    """Its configuration as files, as a user's would be: what runs it needs no options of ours."""
    # Else it cannot clean up after a container that has ended, and waits 20 s for that (doctor/engines.py).
    assert len(f"{base}/run/containers") <= RUN_ROOT_CHARACTERS
    base.chmod(0o755)
    for name, mode in (("home", 0o755), ("run", 0o700), ("data", 0o755)):
        (base / name).mkdir(mode=mode)
        os.chown(base / name, uid, -1)
    runtime = "crun" if shutil.which("crun", path=PATH) else "runc"
    (base / "containers.conf").write_text(
        f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f"[containers]\ndefault_ulimits = {list(ulimits)}\n".replace("'", '"')
    )
    (base / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{base}/data"\nrootless_storage_path = "{base}/data"\n'
        f'runroot = "{base}/run/storage"\n'
    )
    environment = {
        "HOME": str(base / "home"),
        "XDG_RUNTIME_DIR": str(base / "run"),
        "CONTAINERS_CONF": str(base / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(base / "storage.conf"),
    }
    engine = Engine(program="podman", environment=environment, prefix=prefix, rootless=uid != 0)
    engine("import", "-", IMAGE, stdin=tar.read_bytes())
    yield engine
    _remove_containers(engine)
    # As its user, in its namespace: layers of a rootless one belong to its subordinate ids.
    if uid:
        engine("unshare", "rm", "-rf", str(base / "data"), check=False)


def _remove_containers(engine: Engine) -> None:
    found = engine("ps", "--all", "--quiet", check=False).split()
    if found:
        engine("rm", "--force", "--volumes", *found, check=False)


@contextmanager
def _directory(name: str) -> Iterator[Path]:
    """Short: the path of a Unix socket has 107 bytes. In memory, where there is enough: on a disk an engine waits for
    it at each layer, and removing its storage alone can take a minute. Not on an overlay, which does not lie upon itself.
    """
    base = Path(tempfile.mkdtemp(prefix=f"cloister-{name}-", dir="/var/tmp"))
    all_images = "CLOISTER_ALL_IMAGES" in os.environ  # they want more
    if os.geteuid() == 0 and not all_images and _available_bytes() > 2 * _STORAGE_BYTES:
        options = f"size={_STORAGE_BYTES},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(base)], check=False)
    try:
        yield base
    finally:
        for mount in [*_mounts_below(str(base)), str(base)]:
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
        shutil.rmtree(base, ignore_errors=True)


def _available_bytes() -> int:
    """Memory that is free for us (proc_meminfo(5))."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _mounts_below(directory: str) -> list[str]:
    targets = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((target for target in targets if target.startswith(f"{directory}/")), reverse=True)


@contextmanager
def _suppress_timeout() -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired:
        return


def _suite() -> str:
    """The suite of this Debian; elsewhere, bookworm's."""
    lines = Path("/etc/os-release").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_CODENAME", "bookworm") if values.get("ID") == "debian" else "bookworm"


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program, path=PATH) is None:
            _missing(f"{program} is not installed (tools/setup-tests.sh installs it)")


def _missing(reason: str) -> NoReturn:
    fault: Callable[[str], NoReturn] = pytest.fail if os.environ.get("CI") else pytest.skip
    fault(reason)
