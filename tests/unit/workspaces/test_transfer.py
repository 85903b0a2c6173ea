"""Copying between host and sandbox: what arrives, and that no link leads astray (ATTACKS FS-2)."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest

from cloister import cli
from cloister.config import directories
from cloister.config.directories import Project
from cloister.errors import UntrustedInputError, WorkspaceError
from cloister.workspaces import archive, changes, engine_files, store, transfer, tree
from cloister.workspaces.materialise import materialise
from cloister.workspaces.transfer import Mounted


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose sandbox has a private home; the current directory is another one."""
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    Path(directories.project(str(tmp_path / "project"), os.environ).home).mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def home_of(place: Path) -> Path:
    return Path(directories.project(str(place / "project"), os.environ).home)


def cp(place: Path, source: str, destination: str) -> int:
    return cli.dispatch(["cp", "-C", str(place / "project"), source, destination])


def test_files_and_directories_both_ways(place: Path) -> None:
    inside = place / "project"
    (inside / "dist/deep").mkdir(parents=True)
    (inside / "dist/deep/file").write_text("x")
    (inside / "dist/run").write_text("x")
    (inside / "dist/run").chmod(0o755)
    (inside / "dist/link").symlink_to("deep/file")
    assert cp(place, "main:dist", ".") == 0
    assert (place / "here/dist/deep/file").read_text() == "x"
    assert os.access(place / "here/dist/run", os.X_OK)
    assert os.readlink(place / "here/dist/link") == "deep/file"
    assert cp(place, "main:dist/deep/file", "renamed") == 0
    assert (place / "here/renamed").read_text() == "x"
    assert cp(place, "renamed", "main:~/") == 0
    assert (home_of(place) / "renamed").read_text() == "x"
    assert cp(place, "dist", f"main:{place}/home/sub/tree") == 0
    assert (home_of(place) / "sub/tree/deep/file").exists()
    (place / "here/renamed").write_text("y")
    assert cp(place, "renamed", "main:dist/deep/file") == 0
    assert (inside / "dist/deep/file").read_text() == "y"


def test_a_private_workspace_is_reached(place: Path) -> None:
    project = directories.project(str(place / "project"), os.environ)
    inside = Path(materialise(project, "volume", "fix", home=str(place / "home")))
    (inside / "made").write_text("x")
    assert cp(place, "fix:made", ".") == 0
    assert (place / "here/made").exists()
    assert cp(place, "made", f"fix:{place}/project/other") == 0
    assert (inside / "other").exists()
    assert not (place / "project/other").exists()


@pytest.mark.parametrize(
    ("attack", "path"),
    [
        ("ln -s ../secret link", "link"),
        ("ln -s .. link", "link/secret"),
        ("ln -s /proc/self/root link", "link/etc/passwd"),
        ("mkdir d; ln -s ../../secret d/link; ln -s ../.. d/up", "d"),
        (":", "../secret"),
        (":", "d/../../secret"),
        (":", "/etc/passwd"),
    ],
)
def test_no_link_leads_out_of_the_sandbox(
    attack: str, path: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "secret").write_text("the host's")
    assert os.system(f"cd {place}/project && {attack}") == 0
    assert cp(place, f"main:{path}", ".") in (1, 125)
    assert "→" in capsys.readouterr().err or path == "d"
    assert not [one for one in (place / "here").rglob("*") if one.is_symlink() or one.is_file()]


def test_no_link_leads_into_the_host(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = place / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    inside, here = place / "project", place / "here"
    (inside / "link").symlink_to(victim)
    (inside / "file").symlink_to(victim / "file")
    (home_of(place) / "link").symlink_to(victim)
    (here / "new").write_text("evil")
    (here / "tree/link").mkdir(parents=True)
    (here / "tree/link/file").write_text("evil")
    for destination in ("link", "link/file", "link/", "~/link", "~/link/x"):
        assert cp(place, "new", f"main:{destination}") == 125, destination
        assert "is in the way" in capsys.readouterr().err
    assert cp(place, "new", "main:file") == 0, "the link itself is replaced"
    assert cp(place, "tree", f"main:{inside}/.") != 0 or not (victim / "evil").exists()
    assert os.listdir(victim) == ["file"]
    assert (victim / "file").read_text() == "precious"


def test_a_link_in_the_project_is_no_destination(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a sandbox has planted where the user copies to."""
    victim = place / "victim"
    victim.mkdir()
    (place / "project/out").symlink_to(victim)
    (place / "project/file").write_text("evil")
    (home_of(place) / "file").write_text("evil")
    assert cp(place, "main:~/file", f"{place}/project/out/x") == 125
    assert "a sandbox could have made" in capsys.readouterr().err
    assert cp(place, "main:~/file", f"{place}/project/out") == 0
    assert os.listdir(victim) == [], "the link is replaced, not followed"
    assert (place / "project/out").is_file()


def test_devices_and_privileges_stay(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree_ = place / "project/tree"
    tree_.mkdir()
    os.mkfifo(tree_ / "pipe")
    (tree_ / "su").write_text("x")
    (tree_ / "su").chmod(0o4755)
    (tree_ / "ok").write_text("x")
    assert cp(place, "main:tree", ".") == 1
    said = capsys.readouterr().err
    assert "'pipe' was left out" in said
    assert "'su' was left out" in said
    assert [path.name for path in (place / "here/tree").iterdir()] == ["ok"]
    assert cp(place, "main:tree/su", ".") == 125
    assert cp(place, "main:tree/pipe", ".") == 125


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["a", "b"], 2), (["main:a", "other:b"], 2), (["main:a", ""], 2), (["main:missing", "."], 125), (["missing", "main:x"], 125),
        (["../x:a", "b"], 2), (["-rf:a", "b"], 2), (["ü:a", "."], 2), (["main:/usr/bin/env", "."], 125), (["main:a", "no/such/directory"], 125),
    ],
)  # fmt: skip
def test_bad_input(arguments: list[str], code: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "project/a").touch()
    assert cli.dispatch(["cp", "-C", str(place / "project"), "--", *arguments]) == code
    assert "→" in capsys.readouterr().err


def tar(*members: tuple[str, bytes | str | None, dict[str, object]]) -> io.BytesIO:
    """A stream of (name, content; a link's target; None for what `how` says, …)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive_:
        for name, content, how in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            elif content is not None:
                info.size = len(content)
            for key, value in how.items():
                setattr(info, key, value)
            archive_.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    out.seek(0)
    return out


def test_a_tree_survives_the_stream(place: Path) -> None:
    source, target = place / "source", place / "target"
    for one in (source / "deep", target):
        one.mkdir(parents=True)
    (source / ("long" * 40)).write_text("x")
    (source / "deep/é\udcff").write_bytes(b"\0\xff")
    (source / "run").touch(0o755)
    (source / "link").symlink_to("/etc")
    stream = io.BytesIO()
    archive.write(str(source), stream, tree.entries(str(source)).values(), prefix="top", owner=(1000, 1000))
    stream.seek(0)
    assert archive.extract(stream, str(target), strip="top") == []
    assert tree.entries(str(target)) == tree.entries(str(source))
    assert os.readlink(target / "link") == "/etc"
    stream.seek(0)
    with tarfile.open(fileobj=stream) as names:
        assert {(one.uid, one.gid) for one in names} == {(1000, 1000)}


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_name_that_leads_out_is_refused(name: str, place: Path) -> None:
    (place / "target").mkdir()
    with pytest.raises(UntrustedInputError):
        archive.extract(tar((name, b"evil", {})), str(place / "target"))
    assert not (place / "x").exists()


def test_hostile_members_are_left_out(place: Path) -> None:
    target, victim = place / "target", place / "victim"
    for one in (target, victim):
        one.mkdir()
    stream = tar(
        ("link", str(victim), {}), ("link/file", b"evil", {}), ("hard", None, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        ("device", None, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}), ("pipe", None, {"type": tarfile.FIFOTYPE}),
        ("su", b"x", {"mode": 0o4755}), ("ok", b"x", {}), ("ok", b"twice", {}),
    )  # fmt: skip
    said = archive.extract(stream, str(target))
    assert [line.partition(" ")[0] for line in said] == [
        "'link/file'",
        "'hard'",
        "'device'",
        "'pipe'",
        "'ok'",
    ]
    assert os.listdir(victim) == []
    assert sorted(os.listdir(target)) == ["link", "ok", "su"]
    assert (target / "ok").read_text() == "x"
    assert stat.S_IMODE((target / "su").stat().st_mode) == 0o755


@pytest.mark.parametrize("cut", [0, 1, 100, 512, 600, 1024 + 300])
def test_a_stream_that_ends_early_is_an_error(cut: int, place: Path) -> None:
    (place / "target").mkdir()
    whole = tar(("a", b"x" * 1000, {}), ("b", b"y" * 1000, {})).getvalue()
    with pytest.raises(UntrustedInputError):
        archive.extract(
            io.BytesIO(whole[:cut] if cut < 1324 else whole[:1024] + b"junk" * 200), str(place / "target")
        )


def test_limits(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "target").mkdir()
    monkeypatch.setattr(archive, "SIZE_LIMIT_BYTES", 1500)
    with pytest.raises(UntrustedInputError, match="more files"):
        archive.extract(tar(("a", b"x" * 1000, {}), ("b", b"y" * 1000, {})), str(place / "target"))
    monkeypatch.setattr(tree, "ENTRIES_LIMIT", 1)
    with pytest.raises(UntrustedInputError, match="more files"):
        archive.extract(tar(("c", b"", {}), ("d", b"", {})), str(place / "target"))


class Engine:
    """A container's files, as `docker cp` gives and takes them: a directory, seen at its own absolute paths."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def export(self, path: str) -> BinaryIO:
        out = io.BytesIO()
        if not os.path.lexists(f"{self.root}{path}"):
            raise FileNotFoundError(path)
        with tarfile.open(fileobj=out, mode="w|") as stream:
            stream.add(f"{self.root}{path}", arcname=os.path.basename(path))
        out.seek(0)
        return out

    def store(self, directory: str, stream: BinaryIO) -> None:
        if directory == "/work":
            os.makedirs(f"{self.root}{directory}", exist_ok=True)
        if not os.path.isdir(f"{self.root}{directory}"):
            raise FileNotFoundError(directory)
        with tarfile.open(fileobj=stream, mode="r|") as members:
            members.extractall(f"{self.root}{directory}")


def test_a_workspace_in_an_engines_volume(project: Project, home: Path, tmp_path: Path) -> None:
    materialise(project, "volume", "main", home=str(home))
    stored = store.load(project, "main")
    assert stored is not None
    engine = Engine(tmp_path / "engine")
    me = (os.getuid(), os.getgid())
    engine_files.send(stored.files, engine, "/work/project", owner=me)
    inside = tmp_path / "engine/work/project"
    assert (inside / ".git/HEAD").exists()
    assert (inside / "file").read_text() == "one\ntwo\nthree\nfour\n"
    assert engine_files.refresh(stored, engine, "/work/project") == []
    with changes.taken(stored) as snapshot:
        assert snapshot.changes == (), "the way there and back changes nothing"
    (inside / "file").write_text("changed")
    (inside / "made").mkdir()
    (inside / "made/x").write_text("x")
    engine_files.refresh(stored, engine, "/work/project")
    with changes.taken(stored) as snapshot:
        assert [(change.path, change.kind) for change in snapshot.changes] == [
            ("file", "changed"),
            ("made/x", "added"),
        ]
    got = f"{tmp_path}/got"
    shown = f"{project.workspace}/made"
    guarded = project.workspace
    assert engine_files.copy_out(engine, "/work/project/made", got, shown=shown, guarded=guarded) == []
    assert (tmp_path / "got/x").read_text() == "x"
    for target, expected in (("given", "given/x"), ("made", "made/got/x"), ("made/", "made/got/x")):
        engine_files.copy_in(engine, got, f"/work/project/{target}", shown=target, owner=me)
        assert (inside / expected).read_text() == "x"
    (inside / "evil").symlink_to("/etc/passwd")
    with pytest.raises(WorkspaceError, match="symbolic link"):
        engine_files.copy_out(engine, "/work/project/evil", got, shown="evil", guarded=guarded)
    with pytest.raises(WorkspaceError, match="there is no file 'nothing'"):
        engine_files.copy_out(engine, "/work/project/nothing", got, shown="nothing", guarded=guarded)
    with pytest.raises(WorkspaceError, match="there is no directory 'no/such'"):
        engine_files.copy_in(engine, f"{got}/x", "/work/project/no/such/x", shown="no/such/x", owner=me)


def test_a_mirror_that_cannot_be_made_whole_stays_as_it_was(
    project: Project, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room: what is there is not taken for all there is (what it was fetched from is removed then)."""
    materialise(project, "volume", "main", home=str(home))
    stored = store.load(project, "main")
    assert stored is not None
    engine = Engine(tmp_path / "engine")
    engine_files.send(stored.files, engine, "/work/project", owner=(os.getuid(), os.getgid()))
    before = tree.entries(stored.files)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(WorkspaceError, match="no room"):
        engine_files.refresh(stored, engine, "/work/project")
    assert tree.entries(stored.files) == before


def test_a_second_name_of_a_file_is_a_copy(place: Path) -> None:
    target = place / "target"
    target.mkdir()
    stream = tar(
        ("x/file", b"same", {"mode": 0o755, "mtime": 7}),
        ("x/hard", None, {"type": tarfile.LNKTYPE, "linkname": "x/file"}),
        ("x/link", "file", {}),
        ("x/by-link", None, {"type": tarfile.LNKTYPE, "linkname": "x/link"}),
        ("x/early", None, {"type": tarfile.LNKTYPE, "linkname": "x/late"}),
        ("x/out", None, {"type": tarfile.LNKTYPE, "linkname": "x/../../file"}),
        ("x/late", b"", {}),
    )
    said = archive.extract(stream, str(target), strip="x")
    assert [line.partition(" ")[0] for line in said] == ["'by-link'", "'early'", "'out'"]
    one, other = (target / "file").stat(), (target / "hard").stat()
    assert (target / "hard").read_text() == "same"
    assert (other.st_mode, other.st_mtime, other.st_ino != one.st_ino) == (one.st_mode, 7, True)


def test_names_of_one_file_count_each(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AV: a short stream must not become a large tree."""
    (place / "target").mkdir()
    monkeypatch.setattr(archive, "SIZE_LIMIT_BYTES", 2500)
    hard: dict[str, object] = {"type": tarfile.LNKTYPE, "linkname": "file"}
    stream = tar(("file", b"x" * 1000, {}), ("one", None, hard), ("two", None, hard), ("three", None, hard))
    with pytest.raises(UntrustedInputError, match="more files"):
        archive.extract(stream, str(place / "target"))
    assert len(list((place / "target").iterdir())) == 2


def test_the_longest_place_counts() -> None:
    mounted = Mounted(places=(("/home/a/project", "/x"), ("/home/a", "/y")), workspace="/home/a/project")
    assert mounted.locate("src/f") == ("/x", "src/f")
    assert mounted.locate("/home/a/project2") == ("/y", "project2")
    assert mounted.locate("..") == ("/y", "")
    with pytest.raises(WorkspaceError, match="outlives"):
        mounted.locate("/home/b")
    assert transfer.split("main:a:b") == ("main", "a:b")
    assert transfer.split("./a:b") == (None, "./a:b")
    assert transfer.split("a") == (None, "a")
