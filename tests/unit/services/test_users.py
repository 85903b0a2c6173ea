"""Who uses services: sandboxes whose session lives, and those that are held by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cloister.sandbox import registry
from cloister.services.users import Users, all_of


def me() -> registry.Process:
    found = registry.identify(os.getpid())
    assert found is not None
    return found


def test_a_sandbox_uses_services_until_it_lets_go(tmp_path: Path) -> None:
    users = Users.of(str(tmp_path), "acme")
    assert users.live() == ()
    with users.locked():
        users.add("acme-1", me())
        users.add("acme-2", me())
        assert users.live() == ("acme-1", "acme-2")
        assert users.names("acme-1")
        users.remove("acme-1")
        users.remove("acme-1")
        assert users.live() == ("acme-2",)
    assert all_of(str(tmp_path)) == [users]
    assert os.stat(users.directory).st_mode & 0o777 == 0o700


def test_a_dead_session_uses_nothing(tmp_path: Path) -> None:
    users = Users.of(str(tmp_path), "acme")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = registry.identify(child.pid)
    assert process is not None
    with users.locked():
        users.add("acme-1", process)
        assert users.live() == ("acme-1",)
        child.communicate(b"\n")
        assert users.live() == ()
        assert not users.names("acme-1")


def test_a_damaged_file_uses_nothing(tmp_path: Path) -> None:
    users = Users.of(str(tmp_path), "acme")
    with users.locked():
        for number, text in enumerate((b"", b"x y", b"1", b"-1 -1", f"{os.getpid()} 1".encode())):
            (Path(users.directory) / "users" / str(number)).write_bytes(text)
        assert users.live() == ()
        assert os.listdir(os.path.join(users.directory, "users")) == []


def test_services_can_be_held(tmp_path: Path) -> None:
    users = Users.of(str(tmp_path), "acme")
    with users.locked():
        seen = [(users.held, users.engine)]
        users.hold()
        users.use_engine("podman")
        seen.append((users.held, users.engine))
        users.let_go()
        users.let_go()
        seen.append((users.held, users.engine))
    assert seen == [(False, None), (True, "podman"), (False, "podman")]
