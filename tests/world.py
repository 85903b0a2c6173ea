"""The world of a test that starts the real command: who runs it, the command itself, a scratch home, local origins.

The fixtures are in tests/conftest.py, so that a run has one of each: the wheel is built and installed once a worker.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.origins import Authority, HttpsOrigin, LineOrigin

ROOT = Path(__file__).parents[1]
# One for each of pytest-xdist's workers: each creates and removes its own.
USER = "cloister-test" + os.environ.get("PYTEST_XDIST_WORKER", "")
DEADLINE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who runs cloister on the host."""

    name: str
    uid: int
    gid: int

    @property
    def prefix(self) -> list[str]:
        if self.uid == os.geteuid():
            return []
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups", "--"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished command: exit code, standard output and error as text."""

    code: int
    out: str
    err: str


@dataclass(kw_only=True)
class Cloister:
    """The command in a scratch world: `base/home` and `base/home/project` belong to `identity`."""

    command: Path
    identity: Identity
    base: Path
    extra_environment: dict[str, str] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.base / "home"

    @property
    def project(self) -> Path:
        return self.home / "project"

    @property
    def state(self) -> Path:
        """The one project's state directory."""
        (found,) = (self.home / ".local/state/cloister/projects").iterdir()
        return found

    def own(self, path: Path) -> Path:
        os.chown(path, self.identity.uid, self.identity.gid, follow_symlinks=False)
        return path

    def directory(self, path: Path) -> Path:
        """Create `path` and its parents below the home, owned by the identity."""
        missing = [one for one in (path, *path.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=0o755)
            self.own(one)
        return path

    def write(self, path: Path, text: str, mode: int = 0o644) -> Path:
        self.directory(path.parent)
        path.write_text(text)
        path.chmod(mode)
        return self.own(path)

    def configure(self, text: str) -> None:
        """Write the user's configuration."""
        self.write(self.home / ".config/cloister/config.toml", text, 0o600)

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "USER": self.identity.name,
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            **self.extra_environment,
        }

    def argv(self, arguments: Sequence[str]) -> list[str]:
        return [*self.prefix, *self.identity.prefix, str(self.command), *arguments]

    def __call__(
        self,
        *arguments: str,
        cwd: Path | None = None,
        stdin: str | None = None,
        timeout_s: float = DEADLINE_S,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Run `cloister ARGUMENTS` in the project."""
        done = subprocess.run(
            self.argv(arguments),
            cwd=cwd or self.project,
            env={**self.environment(), **(environment or {})},
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Result(code=done.returncode, out=done.stdout, err=done.stderr)

    def run(self, *command: str, **how: object) -> Result:
        """`cloister run -- COMMAND`."""
        return self("run", "--", *command, **how)  # type: ignore[arg-type]  # the options of __call__

    def sh(self, script: str, **how: object) -> Result:
        """A shell script in the sandbox."""
        return self.run("/bin/sh", "-c", script, **how)

    def start(self, *arguments: str, **how: object) -> subprocess.Popen[str]:
        """Start `cloister ARGUMENTS`; the test ends it."""
        process: subprocess.Popen[str] = subprocess.Popen(
            self.argv(arguments),
            cwd=self.project,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **how,  # type: ignore[call-overload]
        )
        return process

    def until_asked(self, name: str, deadline_s: float = 30.0) -> None:
        """Until a sandbox waits for the user's word on this."""
        end = time.monotonic() + deadline_s
        while f"cloister approve {name}" not in self("approve").out:
            assert time.monotonic() < end, "nothing asks"

    def events(self, kind: str | None = None) -> list[dict[str, object]]:
        """The audit log's events, of one kind or all."""
        path = self.state / "audit" / "audit.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if kind is None or line["event"] == kind]

    def processes(self) -> set[int]:
        """Processes of the host that belong to sandboxes of this world: their environment or argv names it."""
        found = set()
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                text = Path(f"/proc/{name}/cmdline").read_bytes() + Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(self.base) in text:
                found.add(int(name))
        return found


@pytest.fixture(scope="session")
def user() -> Iterator[Identity]:
    """An ordinary user, created for the session."""
    if os.geteuid() != 0:
        yield Identity(name=pwd.getpwuid(os.geteuid()).pw_name, uid=os.geteuid(), gid=os.getegid())
        return
    subprocess.run(["useradd", "--create-home", USER], check=False, capture_output=True)
    entry = pwd.getpwnam(USER)
    yield Identity(name=USER, uid=entry.pw_uid, gid=entry.pw_gid)
    subprocess.run(["userdel", "--remove", USER], check=False, capture_output=True)


@pytest.fixture(scope="session")
def installed() -> Iterator[Path]:
    """The command, installed from a wheel as a user would, where an ordinary user can reach it.

    The checkout may lie in root's home. This also shows that the wheel is complete.
    """
    base = Path(tempfile.mkdtemp(prefix="cloister-installed-", dir="/var/tmp"))
    base.chmod(0o755)
    python = sys.executable
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for argv in (
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(base / "wheel"), str(ROOT)],
        [os.path.realpath(python), "-m", "venv", str(base / "venv")],
        [
            str(base / "venv/bin/pip"),
            *pip[3:],
            "install",
            "--require-hashes",
            "-r",
            str(ROOT / "requirements.lock"),
        ],
    ):
        subprocess.run(argv, check=True, timeout=300)
    (wheel,) = (base / "wheel").iterdir()
    subprocess.run(
        [str(base / "venv/bin/pip"), *pip[3:], "install", "--no-deps", str(wheel)], check=True, timeout=300
    )
    yield base / "venv/bin/cloister"
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A private CA for the local origins."""
    return Authority()


@pytest.fixture(scope="session")
def origin(authority: Authority) -> Iterator[HttpsOrigin]:
    """An HTTPS origin that records what it saw; `origin.example.test` and a few more names."""
    with HttpsOrigin(
        authority, names=("origin.example.test", "other.example.test", "evil.example.test")
    ) as running:
        yield running


@pytest.fixture(scope="session")
def http_origin() -> Iterator[HttpsOrigin]:
    """The same over cleartext."""
    with HttpsOrigin(None, names=()) as running:
        yield running


@pytest.fixture(scope="session")
def line_origin() -> Iterator[LineOrigin]:
    """A server-first line protocol, as SSH or PostgreSQL are."""
    with LineOrigin() as running:
        yield running
