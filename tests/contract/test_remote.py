"""What is particular to an engine on another machine: files go there and come back, and nothing else does."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import engine_python
from tests.contract.conftest import World, _world
from tests.contract.test_crashes import eventually, up
from tests.contract.test_outpost import ASK, TOKEN, configuration, engine_of, with_a_credential
from tests.engines import IMAGE, PATH
from tests.fakes.origins import Authority

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture
def remote(request: pytest.FixtureRequest, scratch: Callable[[], Path]) -> Iterator[World]:
    """A project that is a repository, on this host; nothing runs."""
    for world in _world("docker-remote", request, scratch()):
        project = world.cloister.project
        world.cloister.write(project / "src/main.txt", "hello\n")
        world.cloister.write(project / ".env", "SECRET=1\n")
        world.cloister.write(project / ".gitignore", ".env\n")
        for words in (
            ["init", "--quiet", "--initial-branch=main"],
            ["add", "."],
            [
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@example.test",
                "commit",
                "--quiet",
                "--message=first",
            ],
        ):
            subprocess.run(
                [*world.cloister.identity.prefix, "git", *words], cwd=project, check=True,
                env={"PATH": PATH, "HOME": str(world.cloister.home)},
            )  # fmt: skip
        yield world


def project_files(world: World) -> set[str]:
    project = world.cloister.project
    return {str(one.relative_to(project)) for one in project.rglob("*") if ".git/" not in str(one)}


def test_its_containers_have_nothing_of_this_host(remote: World) -> None:
    """Neither a directory, nor a value of its environment; what lies in the volumes is the sandbox's to know."""
    remote.cloister.extra_environment["PRIVATE"] = "not for others"
    up(remote)
    engine = engine_of(remote)
    for name in remote.containers():
        (found,) = json.loads(engine("inspect", name))
        sources = [one["Source"] for one in found["Mounts"] if one["Type"] == "bind"]
        assert all(one.startswith("/mnt/data/volumes/cloister-") for one in sources), sources
        assert "not for others" not in json.dumps(found)
    for volume in remote.volumes():
        for name, content in inside(remote, volume).items():
            assert "SECRET=1" not in content, name


def inside(world: World, volume: str) -> dict[str, str]:
    """What a volume holds."""
    engine = engine_of(world)
    name = f"look-{os.getpid()}"
    engine(
        "create",
        f"--name={name}",
        "--network=none",
        f"--mount=type=volume,source={volume},target=/seen",
        IMAGE,
        "true",
    )
    try:
        whole = subprocess.run(
            ["docker", "cp", f"{name}:/seen", "-"], capture_output=True, check=True,
            env={"PATH": PATH, **engine.environment},
        ).stdout  # fmt: skip
    finally:
        engine("rm", "--force", name)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        return {
            one.name: (archive.extractfile(one) or io.BytesIO()).read().decode(errors="replace")
            for one in archive.getmembers()
            if one.isreg()
        }


def test_what_the_sandbox_did_comes_back_when_it_is_applied(remote: World) -> None:
    """FS-1: and nothing that the host would act on, nor a link out of the project, comes with it."""
    up(remote)
    planted = (
        "echo more >> src/main.txt; mkdir new .vscode; echo x > new/file; ln new/file new/same; "
        "echo x > .vscode/tasks.json; echo x > .envrc; ln -s /etc/passwd new/link; mkfifo new/pipe; "
        "printf '[core]\\n\\tfsmonitor = touch /tmp/breached\\n' >> .git/config; "
        "mkdir -p .git/hooks; printf '#!/bin/sh\\n' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout"
    )
    assert remote.sh(planted).code == 0
    before = (remote.cloister.project / ".git/config").read_text(), project_files(remote)
    shown = remote.cloister("diff", "--names")
    assert shown.code == 0, shown
    assert shown.out.split() == [
        "added", ".envrc", "added", ".vscode/tasks.json", "added", "new/file", "added", "new/link", "added", "new/same",
        "changed", "src/main.txt",
    ]  # fmt: skip
    assert "'new/pipe' was left out" in shown.err
    assert project_files(remote) == before[1], "to look changes nothing"
    applied = remote.cloister("apply", "--yes")
    assert applied.code == 0, applied
    project = remote.cloister.project
    assert (project / "src/main.txt").read_text() == "hello\nmore\n"
    assert (project / "new/same").read_text() == "x\n"
    assert (project / "new/file").stat().st_uid == remote.cloister.identity.uid
    assert project_files(remote) == before[1] | {"new", "new/file", "new/same"}
    assert (project / ".git/config").read_text() == before[0]
    assert not (project / ".git/hooks/post-checkout").exists()


def test_files_are_copied_in_and_out(remote: World) -> None:
    up(remote)
    cloister = remote.cloister
    given = cloister.write(cloister.home / "given.txt", "given\n")
    cloister.write(cloister.home / "tree/deep/file", "deep\n")
    for source, target in (
        (given, "main:src"),
        (given, "main:src/renamed"),
        (cloister.home / "tree", "main:~/"),
    ):
        copied = cloister("cp", str(source), target)
        assert copied.code == 0, copied
    seen = remote.sh(
        "cat src/given.txt src/renamed ~/tree/deep/file; test -O src/given.txt && test -w ~/tree && echo mine"
    )
    assert seen.out == "given\ngiven\ndeep\nmine\n", seen
    assert remote.sh("mkdir out; echo 1 > out/1; ln -s /etc/passwd out/link; echo kept > ~/kept").code == 0
    back = cloister("cp", "main:out", str(cloister.home / "got"))
    assert (back.code, (cloister.home / "got/1").read_text()) == (1, "1\n"), back
    assert "a link to an absolute path" in back.err
    assert not (cloister.home / "got/link").is_symlink()
    assert cloister("cp", "main:~/kept", str(cloister.home)).code == 0
    assert (cloister.home / "kept").read_text() == "kept\n"
    for words, expected in (
        (("main:nothing", "."), "there is no file"),
        ((str(given), "main:nothing/there"), "there is no directory"),
        (("main:/etc/passwd", "."), "not a place of the sandbox that outlives it"),
        (("main:out/link", "."), "symbolic link"),
    ):
        wrong = cloister("cp", *words)
        assert (wrong.code, expected in wrong.err) == (125, True), wrong


def test_home_and_workspace_outlive_a_sandbox(remote: World) -> None:
    """A stop, a change of the configuration, and the end of the volume itself."""
    up(remote)
    assert remote.sh("echo one > work; echo two > ~/mine").code == 0
    assert remote.cloister("stop", timeout_s=120).code == 0
    assert remote.containers() == []
    assert remote.cloister("diff", "--names").out.split() == ["added", "work"]
    up(remote)
    assert remote.sh("cat work ~/mine").out == "one\ntwo\n"
    assert remote.cloister("stop", timeout_s=120).code == 0
    (work,) = [one for one in remote.volumes() if one.endswith("-workspace")]
    engine_of(remote)("volume", "rm", work)
    again = remote.cloister("up", timeout_s=120)
    assert (again.code, f"has lost the volume {work!r}" in again.err) == (0, True), again
    assert remote.sh("cat work ~/mine").out == "one\ntwo\n", "what `diff` had fetched is there"


def test_files_that_change_meanwhile_are_fetched_whole_or_not_at_all(remote: World) -> None:
    up(remote)
    script = "while :; do head -c 3000000 /dev/zero > a; : > a; echo x >> b; done"
    with subprocess.Popen(
        remote.cloister.argv(["exec", "--", "/bin/sh", "-c", script]), cwd=remote.cloister.project,
        env=remote.cloister.environment(), stdin=subprocess.DEVNULL,
    ) as writing:  # fmt: skip
        eventually(lambda: remote.sh("test -s b").code == 0)
        for _ in range(5):
            seen = remote.cloister("diff", "--names")
            assert (seen.code == 0 and "added    b" in seen.out) or "stop it first" in seen.err, seen
        assert remote.cloister("stop", timeout_s=120).code == 0
        writing.wait(60)
    seen = remote.cloister("diff", "--names")
    assert (seen.code, seen.out.split()) == (0, ["added", "a", "added", "b"]), seen


def test_the_work_moves_between_engines(remote: World) -> None:
    up(remote)
    assert remote.sh("echo there > work").code == 0
    inside_this_host = ("run", "--runtime", "embedded", "--", "/bin/sh", "-c", "cat work; echo here >> work")
    early = remote.cloister(*inside_this_host, timeout_s=120)
    assert (early.code, "stop it first" in early.err) == (125, True), early
    assert remote.cloister("stop", timeout_s=120).code == 0
    moved = remote.cloister(*inside_this_host, timeout_s=120)
    assert (moved.code, moved.out) == (0, "there\n"), moved
    assert [one for one in remote.volumes() if one.endswith("-workspace")] == []
    up(remote)
    assert remote.sh("cat work").out == "there\nhere\n"


def test_removing_it_takes_everything_away(remote: World) -> None:
    up(remote)
    assert remote.sh("echo work > work").code == 0
    assert remote.cloister("stop", timeout_s=120).code == 0
    kept = remote.cloister("rm", "--volumes", timeout_s=120)
    assert (kept.code, "has changes, which would be lost" in kept.err) == (2, True), kept
    assert remote.cloister("rm", "--volumes", "--force", timeout_s=120).code == 0
    assert remote.containers() == remote.volumes() == []
    assert not list(remote.cloister.home.glob(".local/state/cloister/projects/*/homes"))


def test_a_killed_supervisor_loses_nothing(remote: World) -> None:
    session = up(remote)["session"]
    assert isinstance(session, list)
    assert remote.sh("echo work > work").code == 0
    os.kill(session[0], signal.SIGKILL)
    again = remote.cloister("up", timeout_s=120)
    assert (again.code, "had been killed" in again.err) == (0, True), again
    assert remote.sh("cat work").out == "work\n"
    assert remote.cloister("stop", timeout_s=120).code == 0
    assert remote.containers() == []
    assert sorted(one.rpartition("-")[2] for one in remote.volumes()) == ["home", "workspace"]


def test_a_start_that_is_killed_is_begun_anew(remote: World) -> None:
    """At whatever point of the way there."""
    for moment in (0.1, 0.3, 0.5, 0.8, 1.2):
        process = remote.cloister.start("run", "--", "/bin/cat")
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    done = remote.cloister("run", "--", "/bin/cat", "src/main.txt", timeout_s=120)
    assert (done.code, done.out) == (0, "hello\n"), done
    eventually(lambda: remote.containers() == [])
    assert sorted(one.rpartition("-")[2] for one in remote.volumes()) == ["home", "workspace"]


def test_what_a_killed_transfer_has_left_is_in_nobodys_way(remote: World) -> None:
    """The volume is not whole, and the container that files went through still has it."""
    up(remote)
    assert remote.cloister("stop", timeout_s=120).code == 0
    (record,) = remote.cloister.home.glob(".local/state/cloister/projects/*/workspaces/main/away.json")
    written = json.loads(record.read_text())
    record.write_text(json.dumps({**written, "whole": False}))
    engine, volume = engine_of(remote), written["volume"]
    engine(
        "create",
        f"--name={volume}-filler",
        f"--mount=type=volume,source={volume},target=/seen",
        IMAGE,
        "true",
    )
    done = remote.cloister("run", "--", "/bin/cat", "src/main.txt", timeout_s=120)
    assert (done.code, done.out) == (0, "hello\n"), done
    assert f"{volume}-filler" not in engine("ps", "--all", "--format={{.Names}}")
    assert volume not in remote.volumes()


def test_a_clone_comes_back_as_a_branch(remote: World) -> None:
    remote.cloister.configure(configuration(remote).replace('"volume"', '"clone"'))
    with engine_python.image(engine_of(remote), "/usr/bin/git") as image:
        remote.cloister.configure(configuration(remote).replace(IMAGE, image))
        up(remote)
        committed = remote.sh(
            "echo more >> src/main.txt; git -c user.name=A -c user.email=a@example.test commit --quiet -am second"
        )
        assert committed.code == 0, committed
        applied = remote.cloister("apply", "--yes")
        assert (applied.code, "git merge" in applied.out) == (0, True), applied


def test_a_credential_stays_here(remote: World, authority: Authority) -> None:
    """A placeholder there, the value on the wire; neither the containers' descriptions nor the volumes hold it."""
    with with_a_credential(remote, authority) as origin:
        up(remote)
        asked = remote.exec("/usr/bin/python3", "-c", ASK)
        assert (asked.code, asked.out) == (0, "200\n"), asked
        assert [one.headers["authorization"] for one in origin.seen] == [f"Bearer {TOKEN}"]
        assert remote.sh('test -n "$API_TOKEN" && echo "$API_TOKEN"').out.strip() not in ("", TOKEN)
        engine = engine_of(remote)
        assert TOKEN not in engine("inspect", *remote.containers())
        for volume in remote.volumes():
            assert TOKEN not in str(inside(remote, volume))
        assert remote.cloister("stop", timeout_s=120).code == 0


def test_what_needs_files_of_this_host_is_refused_by_name(remote: World) -> None:
    text = configuration(remote)
    cases = (
        (text.replace('workspace = "volume"', 'workspace = "bind"'), 'set [sandbox] workspace = "volume"'),
        (
            text.replace("pids = 200", 'pids = 200\nread_only = ["/usr/share/doc"]'),
            "[sandbox] read_only names some",
        ),
        (f'{text}\n[services.db]\nimage = "{IMAGE}"\nports = [5432]\n', "[services] declares some"),
    )
    for configured, expected in cases:
        remote.cloister.configure(configured)
        done = remote.cloister("run", "--", "/bin/true", timeout_s=120)
        assert (done.code, expected in done.err) == (125, True), done
    assert remote.containers() == remote.volumes() == []


def test_one_that_is_not_reached_any_more(remote: World) -> None:
    """What is there cannot be looked at, and is not forgotten."""
    up(remote)
    assert remote.sh("echo work > work").code == 0
    assert remote.cloister("stop", timeout_s=120).code == 0
    (record,) = remote.cloister.home.glob(".local/state/cloister/projects/*/workspaces/main/away.json")
    whole = record.read_text()
    record.write_text(whole.replace(engine_of(remote).environment["DOCKER_HOST"], "tcp://127.0.0.1:1"))
    for words in (("diff",), ("cp", "main:work", "."), ("rm", "--volumes", "--force")):
        done = remote.cloister(*words, timeout_s=120)
        assert (done.code, "does not answer" in done.err) == (125, True), (words, done)
    record.write_text(whole)
    assert remote.cloister("diff", "--names").out.split() == ["added", "work"]


def test_it_is_reached_over_ssh(remote: World) -> None:
    """By the client's own ssh, which here is one that needs no server."""
    address = engine_of(remote).environment["DOCKER_HOST"]
    client = shutil.which("docker")
    remote.cloister.write(
        remote.cloister.base / "bin/ssh",
        f"#!/bin/sh\nexec {client} --host {address} system dial-stdio\n",
        0o755,
    )
    remote.cloister.extra_environment |= {
        "DOCKER_HOST": "ssh://ada@elsewhere.example.test", "PATH": f"{remote.cloister.base}/bin:{PATH}",
    }  # fmt: skip
    done = remote.cloister("run", "--", "/bin/cat", "src/main.txt", timeout_s=120)
    assert (done.code, done.out) == (0, "hello\n"), done
    assert "brought to ssh://ada@elsewhere.example.test" in done.err
