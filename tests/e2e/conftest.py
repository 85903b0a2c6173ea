"""Real sandboxes, as root and as an ordinary user, with local origins under pinned names.

Every test gets `cloister`: a scratch home, configuration and project of one identity, and the command itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h2
import pytest

from tests.e2e.credentialed import configure, web  # noqa: F401  # fixtures
from tests.fakes.origins import Authority, HttpsOrigin, LineOrigin
from tests.world import ROOT, Cloister, Identity

CLIENT_PACKAGES = (
    "anyio", "boto3", "botocore", "certifi", "dateutil", "grpc", "h11", "h2", "hpack", "httpcore", "httpx", "hyperframe",
    "idna", "jmespath", "s3transfer", "six.py", "typing_extensions.py", "urllib3", "wsproto",
)  # fmt: skip


@pytest.fixture(params=["root", "user"])
def identity(request: pytest.FixtureRequest, user: Identity) -> Identity:
    if request.param == "user":
        return user
    if os.geteuid() != 0:
        pytest.skip("the case as root needs root")
    return Identity(name="root", uid=0, gid=0)


@pytest.fixture
def world(installed: Path, user: Identity) -> Iterator[Callable[[Identity], Cloister]]:
    """Makes scratch worlds that an ordinary user can reach, and removes them with what still runs in them."""
    made: list[Cloister] = []

    def make(identity: Identity) -> Cloister:
        base = Path(tempfile.mkdtemp(prefix="cloister-e2e-", dir="/var/tmp"))
        base.chmod(0o755)
        one = Cloister(command=installed, identity=identity, base=base)
        one.directory(one.project)
        made.append(one)
        return one

    yield make
    for one in made:
        for pid in one.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(one.base, ignore_errors=True)


@pytest.fixture
def cloister(world: Callable[[Identity], Cloister], identity: Identity) -> Cloister:
    return world(identity)


@pytest.fixture
def user_cloister(world: Callable[[Identity], Cloister], user: Identity) -> Cloister:
    """For cases in which who runs cloister makes no difference."""
    return world(user)


@pytest.fixture(scope="session")
def client_packages() -> Iterator[Path]:
    """The Python packages of the clients that run in sandboxes, where an ordinary user can read them."""
    source = Path(h2.__file__).parents[1]
    with tempfile.TemporaryDirectory(prefix="cloister-clients-", dir="/var/tmp") as directory:
        base = Path(directory)
        base.chmod(0o755)
        for name in CLIENT_PACKAGES:
            if (source / name).is_dir():
                shutil.copytree(source / name, base / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source / name, base / name)
        yield base


@pytest.fixture
def aws_extra(installed: Path, client_packages: Path) -> Iterator[None]:
    """`cloister[aws]`: botocore beside the installed command, for as long as the test runs."""
    (packages,) = installed.parents[1].glob("lib/python*/site-packages")
    path = packages / "aws-extra.pth"
    path.write_text(f"{client_packages}\n")
    yield
    path.unlink()


@pytest.fixture(scope="session")
def claude_code() -> Iterator[Path]:
    """Claude Code as npm installed it, where an ordinary user can read it: the program."""
    package = ROOT / ".cache/npm/node_modules/@anthropic-ai/claude-code"
    if not (package / "bin/claude.exe").exists():
        pytest.fail("Claude Code is missing: tools/setup-tests.sh installs it")
    with tempfile.TemporaryDirectory(prefix="cloister-agent-", dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(shutil.copytree(package, Path(directory) / "claude-code")) / "bin/claude.exe"


@pytest.fixture
def reach(
    cloister: Cloister,
    origin: HttpsOrigin,
    http_origin: HttpsOrigin,
    line_origin: LineOrigin,
    authority: Authority,
) -> Cloister:
    """A configuration under which the local origins are allowed by name, and `evil.example.test` exists but is not."""
    ca = cloister.write(cloister.home / "ca.pem", authority.pem)
    cloister.configure(
        f"""
[network]
allow = ["origin.example.test", "plain.example.test", "tcp://line.example.test:2222", "*.wild.example.test:8443"]
upstream_ca = ["{ca}"]

[network.hosts]
"origin.example.test" = "127.0.0.1:{origin.port}"
"other.example.test" = "127.0.0.1:{origin.port}"
"evil.example.test" = "127.0.0.1:{origin.port}"
"plain.example.test" = "127.0.0.1:{http_origin.port}"
"line.example.test" = "127.0.0.1:{line_origin.port}"
"a.wild.example.test" = "127.0.0.1:{origin.port}"
"""
    )
    return cloister
