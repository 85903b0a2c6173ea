"""A protected file that the host replaces or removes while a sandbox lives: the kernel takes the mount upon it away,
and the sandbox must not get hold of the name (ATTACKS FS-1)."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.world import Cloister

pytestmark = pytest.mark.sandbox

TRY = """
for path in .git/config .git/hooks .git/hooks/pre-commit .mcp.json .envrc .vscode/tasks.json pkg/.vscode/tasks.json secret.key; do
    [ -d $path ] && { touch $path/x 2>/dev/null && echo "write in $path"; continue; }
    { echo evil >> $path; } 2>/dev/null && echo "append $path"
    { echo evil > new && mv new $path; } 2>/dev/null && echo "rename $path"; rm -f new
done
mv pkg pkg.away 2>/dev/null && echo "move pkg"
grep -h s3cr3t .git/config secret.key 2>/dev/null
echo tried"""


def git(cloister: Cloister, *arguments: str) -> None:
    subprocess.run(
        [*cloister.identity.prefix, "git", *arguments],
        cwd=cloister.project,
        env=cloister.environment(),
        check=True,
    )


def on_host(cloister: Cloister, script: str) -> None:
    subprocess.run(
        [*cloister.identity.prefix, "sh", "-ec", script],
        cwd=cloister.project,
        env=cloister.environment(),
        check=True,
    )


@contextmanager
def living(cloister: Cloister, script: str) -> Iterator[tuple[subprocess.Popen[str], queue.Queue[str]]]:
    """A sandbox that runs `script` for each line that it is given; and what cloister says meanwhile."""
    process = cloister.start("run", "--", "sh", "-c", f"echo up; while read -r line; do {script}\ndone")
    assert process.stdout is not None
    assert process.stderr is not None
    said: queue.Queue[str] = queue.Queue()
    stream = process.stderr
    thread = threading.Thread(target=_collect, args=(stream, said), daemon=True)
    thread.start()
    try:
        assert process.stdout.readline() == "up\n"
        yield process, said
    finally:
        process.kill()
        process.wait()
        thread.join(timeout=10)


def _collect(stream: IO[str], said: queue.Queue[str]) -> None:
    for line in stream:
        said.put(line)


def until_said(said: queue.Queue[str], text: str, deadline_s: float = 30.0) -> str:
    end = time.monotonic() + deadline_s
    while text not in (line := said.get(timeout=max(0.1, end - time.monotonic()))):
        pass
    return line


def attempt(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    lines: list[str] = []
    while not lines or lines[-1] != "tried":
        line = process.stdout.readline()
        assert line, "the sandbox ended"
        lines.append(line.rstrip("\n"))
    return lines[:-1]


@pytest.fixture
def project(cloister: Cloister) -> Path:
    git(cloister, "init", "-q", "-b", "main")
    git(cloister, "remote", "add", "origin", "https://me:s3cr3t@forge.example.test/a/b.git")
    for name in (".mcp.json", ".vscode/tasks.json", "pkg/.vscode/tasks.json"):
        cloister.write(cloister.project / name, "{}\n")
    cloister.write(cloister.project / "secret.key", "PRIVATE KEY s3cr3t\n")
    return cloister.project


@pytest.mark.parametrize(
    ("does", "path"),
    [
        ("git config user.x y", ".git/config"),
        ("echo '{}' > n; mv n .mcp.json", ".mcp.json"),
        ("rm .mcp.json", ".mcp.json"),
        ("rmdir .envrc; echo x > .envrc", ".envrc"),
        ("mv .vscode v; mkdir .vscode; echo '{}' > .vscode/tasks.json", ".vscode"),
        ("rm -r .vscode", ".vscode"),
        ("mv .git/hooks .git/h", ".git/hooks"),
        ("cp secret.key k; mv k secret.key", "secret.key"),
        ("rm -r pkg/.vscode", "pkg/.vscode"),
    ],
)  # fmt: skip
def test_what_the_host_replaces_is_held_again(
    cloister: Cloister, project: Path, does: str, path: str
) -> None:
    with living(cloister, TRY) as (process, said):
        assert attempt(process) == []
        on_host(cloister, does)
        line = until_said(said, "was replaced on this machine")
        assert str(project / path) in line
        assert attempt(process) == []
        on_host(cloister, "git config user.again y")
        until_said(said, "user.again")
        assert attempt(process) == [], "again and again"
    assert "evil" not in (project / ".git/config").read_text()


def test_nothing_is_left_behind(cloister: Cloister, project: Path) -> None:
    process = cloister.start("run", "--", "sh", "-c", "echo up; read -r line")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    deadline = time.monotonic() + 30
    (project / ".mcp.json").unlink()
    while not (project / ".mcp.json").is_dir():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    _, err = process.communicate("go\n", timeout=60)
    assert "was replaced" in err
    assert not (project / ".mcp.json").exists()


def test_a_removed_directory_stops_the_sandbox(cloister: Cloister, project: Path) -> None:
    """Nothing can be held in a directory that is not there."""
    process = cloister.start("run", "--", "sh", "-c", "echo up; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    on_host(cloister, "rm -r pkg")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 125
    assert "could not be protected again" in err


def test_one_that_waits_for_it_is_told(cloister: Cloister, project: Path) -> None:
    """Between the two an agent that tries all the time may write. It must not go unnoticed."""
    spin = 'while :; do printf "[core]\\n\\tfsmonitor = evil\\n" >> .git/config; done 2>/dev/null'
    process = cloister.start("run", "--", "sh", "-c", f"echo up; {spin}")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "up\n"
    on_host(cloister, "sleep 1; git config user.x y; sleep 1")
    process.terminate()
    process.wait(timeout=60)
    said = process.stderr.read()
    assert "was replaced on this machine" in said
    planted = "fsmonitor" in (project / ".git/config").read_text()
    assert planted == ("now sets core.fsmonitor" in said), said
