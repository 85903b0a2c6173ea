from __future__ import annotations

from pathlib import Path

import pytest

from cloister.sandbox import toolchains
from cloister.sandbox.toolchains import Toolchains


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' home lies in /tmp, where no tools are looked for otherwise."""
    trees = tuple(tree for tree in toolchains.FORBIDDEN_TREES if tree != "/tmp")
    monkeypatch.setattr(toolchains, "FORBIDDEN_TREES", trees)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    return home


def look(home: Path, *path: Path | str, **environ: str) -> Toolchains:
    return toolchains.find(
        tuple(map(str, path)), home=str(home), workspace=str(home / "project"), environ=environ
    )


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("entry", "bound"),
    [
        (".pyenv/shims", ".pyenv"),
        (".nvm/versions/node/v22/bin", ".nvm"),
        (".cargo/bin", ".cargo/bin"),
        (".local/share/mise/shims", ".local/share/mise"),
        (".bun/bin", ".bun/bin"),
        ("go/bin", "go/bin"),
        ("tools/bin", "tools/bin"),
    ],
)
def test_a_tool_of_the_home_is_bound_whole_but_no_more(home: Path, entry: str, bound: str) -> None:
    program(home / entry / "tool")
    found = look(home, home / entry)
    assert found.binds == (str(home / bound),)
    assert found.path[0] == str(home / entry)


def test_cargo_brings_rustup_but_no_credentials(home: Path) -> None:
    program(home / ".cargo/bin/cargo")
    (home / ".cargo/credentials.toml").touch()
    (home / ".rustup").mkdir()
    assert look(home, home / ".cargo/bin").binds == (str(home / ".cargo/bin"), str(home / ".rustup"))


@pytest.mark.parametrize(
    "entry", ["", ".ssh", ".config/tool/bin", ".aws/bin", ".local", ".claude/local", "snap/bin"]
)
def test_what_holds_secrets_is_never_bound_and_not_on_path(home: Path, entry: str) -> None:
    program(home / entry / "tool")
    found = look(home, home / entry)
    assert found.binds == ()
    assert str(home / entry) not in found.path


def test_what_contains_the_home_is_never_bound(home: Path) -> None:
    assert look(home, home.parent).binds == ()
    assert look(home, "/", "/etc", "relative", "/nonexistent").binds == ()


def test_links_in_a_bin_directory_lead_to_their_trees(home: Path) -> None:
    program(home / ".local/share/claude/versions/1/claude")
    program(home / "elsewhere/deep/tool")
    (home / ".ssh").mkdir()
    (home / ".ssh/id").touch()
    local = home / ".local/bin"
    local.mkdir(parents=True)
    (local / "claude").symlink_to("../share/claude/versions/1/claude")
    (local / "tool").symlink_to(home / "elsewhere/deep/tool")
    (local / "key").symlink_to(home / ".ssh/id")
    found = look(home, local)
    assert set(found.binds) == {
        str(local),
        str(home / ".local/share/claude"),
        str(home / "elsewhere/deep/tool"),
    }


def test_system_and_workspace_directories_need_no_bind(home: Path) -> None:
    program(home / "project/.venv/bin/python")
    found = look(home, "/usr/bin", home / "project/.venv/bin")
    assert found.binds == ()
    assert found.path == ("/usr/bin", str(home / "project/.venv/bin"), "/usr/local/bin")


def test_the_workspaces_virtual_environment_brings_its_python(home: Path) -> None:
    python = program(home / ".local/share/uv/python/cpython-3.13/bin/python3.13")
    (home / "project/.venv/bin").mkdir(parents=True)
    (home / "project/.venv/bin/python").symlink_to(python)
    assert look(home).binds == (str(home / ".local/share/uv/python"),)


def test_a_moved_root_is_bound_and_its_variable_passes(home: Path, tmp_path: Path) -> None:
    program(tmp_path / "tools/pyenv/shims/python")
    found = look(
        home, tmp_path / "tools/pyenv/shims", PYENV_ROOT=str(tmp_path / "tools/pyenv"), NVM_DIR="/nowhere"
    )
    assert found.binds == (str(tmp_path / "tools/pyenv"),)
    assert found.variables == (("PYENV_ROOT", str(tmp_path / "tools/pyenv")),)


def test_a_link_in_the_workspace_brings_known_tools_only(home: Path) -> None:
    """The agent may have made it: any file of the home would be shown."""
    project = home / "project"
    secret = program(home / "Documents/bin/secret")
    python = program(home / ".pyenv/versions/3.12/bin/python3.12")
    uv_secret = program(home / ".local/share/uv/credentials/credentials.toml")
    (project / ".venv/bin").mkdir(parents=True)
    link = project / ".venv/bin/python"
    for target, bound in ((secret, ()), (uv_secret, ()), (python, (str(home / ".pyenv"),))):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert look(home).binds == bound


@pytest.mark.parametrize("how", ["entry", "parent", "from outside", "through ..", "root variable"])
def test_a_path_entry_in_the_workspace_cannot_be_redirected(home: Path, how: str) -> None:
    project = home / "project"
    program(home / "Documents/bin/secret")
    (project / "env").mkdir()
    environ = {}
    if how == "entry":
        (project / "env/bin").symlink_to(home / "Documents/bin")
    elif how == "root variable":
        (project / "env").rmdir()
        (project / "env").symlink_to(home / "Documents")
        environ = {"CONDA_PREFIX": str(project / "env")}
    elif how == "through ..":
        (project / "env/deep").symlink_to(home / "Documents/bin")
        (project / "env/bin").symlink_to("deep/../bin")
    else:
        (project / "env").rmdir()
        (project / "env").symlink_to(home / "Documents")
    entry = project / "env/bin"
    if how == "from outside":
        (home / "tools").symlink_to(project / "env")
        entry = home / "tools/bin"
    found = look(home, entry, **environ)
    assert found.binds == ()
    assert str(home / "Documents/bin") not in found.path


def test_a_users_own_link_is_followed(home: Path) -> None:
    """The control of the one above."""
    program(home / "Documents/bin/tool")
    (home / "tools").symlink_to(home / "Documents")
    assert look(home, home / "tools/bin").binds == (str(home / "Documents/bin"),)
