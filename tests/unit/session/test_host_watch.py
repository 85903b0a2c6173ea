"""What the host replaces, where nobody sees the sandbox's mounts: each way of replacing is noticed, and nothing else."""

from __future__ import annotations

import select
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.errors import HostError
from cloister.sandbox.spec import Bind, MaskFile, Tmpfs
from cloister.session.host_watch import HostWatch, points
from cloister.values import replace
from tests.unit.runtimes.test_oci_argv import SPEC

INSIDE = SPEC.workspace
SPEC_HERE = replace(
    SPEC,
    mounts=(
        Bind("/anywhere", INSIDE, writable=True),
        Bind(f"{INSIDE}/.git/config", f"{INSIDE}/.git/config"),
        Bind("/cache", f"{INSIDE}/cache", writable=True),
        MaskFile(f"{INSIDE}/.env"),
        Tmpfs("/tmp", None, 0o1777),
        Bind("/state/3", "/etc/passwd"),
    ),
)  # fmt: skip


def readable(watch: HostWatch) -> bool:
    return bool(select.select([watch.fileno()], [], [], 0)[0])


def made(tmp_path: Path) -> HostWatch:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("[core]")
    watch = HostWatch(SPEC_HERE, str(tmp_path))
    (tmp_path / ".env").write_text("")  # what an engine makes to mount on
    watch.settle()
    if readable(watch):
        watch.check()
    return watch


def test_the_workspaces_own_mount_points_are_watched() -> None:
    assert points(SPEC_HERE, "/w") == ["/w/.git/config", "/w/.env"]


@pytest.mark.parametrize(
    "change",
    [
        lambda base: (base / ".git/new").write_text("x") and (base / ".git/new").rename(base / ".git/config"),
        lambda base: (base / ".git/config").unlink(),
        lambda base: (base / ".git/config").rename(base / ".git/away"),
        lambda base: (base / ".env").unlink(),
    ],
    ids=["replaced", "removed", "moved away", "a mask's point removed"],
)
def test_a_replacement_stops_the_sandbox(tmp_path: Path, change: Callable[[Path], object]) -> None:
    watch = made(tmp_path)
    change(tmp_path)
    assert readable(watch)
    with pytest.raises(HostError, match="which is protected, so the sandbox was stopped"):
        watch.check()
    watch.close()


def test_what_is_not_protected_may_come_and_go(tmp_path: Path) -> None:
    watch = made(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").unlink()
    (tmp_path / ".git/config").write_text("[user]")  # written, not replaced: the mount stays
    assert readable(watch)
    watch.check()
    watch.close()
