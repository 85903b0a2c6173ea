"""A Docker engine of the laboratory's own, as Docker is by default: a bridge, NAT, its own DNS for networks.

Rule 1: it lives in the laboratory's namespaces; data, sockets and networks are its own, and end with it.
Rule 2: it stores in memory where there is enough, in a mount of the laboratory's: on a disk, to remove it all can take
        a minute.
Rule 3: its image is a Debian that mmdebstrap makes once, with what the peers' Dockerfiles need: there is no registry.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloister.system import linux

IMAGE = "compare-base"
PACKAGES = ("ca-certificates", "iproute2", "iptables", "procps", "python3", "python3-venv", "sudo")
ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / ".cache/images/compare.tar"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STORAGE_BYTES = 4 << 30  # IMAGE, two that are built of it, and their containers take 1 GB
_START_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A started engine that has IMAGE. `environment` is what a client needs."""

    environment: Mapping[str, str]

    def __call__(self, *arguments: str, timeout_s: float = 120) -> str:
        """A command of its client. RuntimeError with its words if it fails."""
        done = subprocess.run(
            ["docker", *arguments],
            env={"PATH": _PATH, "HOME": "/nonexistent", **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()


def missing() -> str:
    """Why there can be no engine; "" if there can."""
    programs = [one for one in ("dockerd", "docker", "mmdebstrap") if shutil.which(one, path=_PATH) is None]
    return f"{', '.join(programs)} not installed (tools/setup-tests.sh installs it)" if programs else ""


def image() -> Path:
    """The root file system of IMAGE, as a tar. Outside of the laboratory: it needs Debian's packages."""
    if not BASE.exists():
        BASE.parent.mkdir(parents=True, exist_ok=True)
        part = BASE.with_suffix(f".{os.getpid()}.tar")
        packages = f"--include={','.join(PACKAGES)}"
        argv = ["mmdebstrap", "--variant=minbase", packages, "--quiet", _suite(), str(part)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            part.unlink(missing_ok=True)
            raise RuntimeError(f"mmdebstrap could not make the image: {done.stderr[-1000:]}")
        part.rename(BASE)
    return BASE


@contextmanager
def started(base: Path) -> Iterator[Engine]:
    """In the laboratory. RuntimeError with its log if it does not start."""
    directory = base / "docker"
    directory.mkdir(mode=0o711)
    if _available_bytes() > 2 * STORAGE_BYTES:
        linux.mount("tmpfs", str(directory), "tmpfs", 0, f"size={STORAGE_BYTES},mode=0711")
    socket, log = f"unix://{directory}/docker.sock", directory / "log"
    argv = [
        "setpriv", "--pdeathsig=TERM", "dockerd", "--data-root", f"{directory}/data", "--exec-root",
        f"{directory}/exec", "--pidfile", f"{directory}/pid", "--host", socket,
    ]  # fmt: skip
    engine = Engine(environment={"DOCKER_HOST": socket})
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={"PATH": _PATH}, cwd="/"
        )
        try:
            _wait(process, engine, log)
            (directory / "docker.sock").chmod(0o666)  # for the ordinary user
            engine("import", str(BASE), IMAGE)
            yield engine
        finally:
            _end(process, directory)


def _wait(process: subprocess.Popen[bytes], engine: Engine, log: Path) -> None:
    end = time.monotonic() + _START_S
    while True:
        try:
            engine("version")
        except RuntimeError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"dockerd does not start: {log.read_text()[-1500:]}") from None
            time.sleep(0.05)
        else:
            return


def _end(process: subprocess.Popen[bytes], directory: Path) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for target in [*reversed(_mounts(f"{directory}/")), *_mounts(str(directory))]:
        linux.umount2(target, linux.MNT_DETACH)


def _mounts(prefix: str) -> Sequence[str]:
    targets = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [
        target
        for target in targets
        if target == prefix or (prefix.endswith("/") and target.startswith(prefix))
    ]


def _available_bytes() -> int:
    """Memory that is free for us (proc_meminfo(5))."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _suite() -> str:
    """That of this Debian; elsewhere bookworm."""
    text = Path("/etc/os-release").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return values.get("VERSION_CODENAME", "bookworm") if values.get("ID") == "debian" else "bookworm"
