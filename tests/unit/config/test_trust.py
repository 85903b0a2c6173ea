"""Trust: exactly the adopted bytes count, and the difference can be read safely."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.config import trust
from cloister.config.directories import Project, project
from cloister.errors import UntrustedConfigurationError


@pytest.fixture
def here(tmp_path: Path) -> Project:
    (tmp_path / "work").mkdir()
    return project(str(tmp_path / "work"), {"HOME": str(tmp_path)})


def refused(here: Project) -> UntrustedConfigurationError:
    with pytest.raises(UntrustedConfigurationError) as caught:
        trust.check(here, *trust.texts(here))
    assert caught.value.resolution == "read the difference; if you want it: cloister trust"
    return caught.value


def test_project_configuration_counts_only_once_adopted(here: Project) -> None:
    trust.check(here, *trust.texts(here))  # neither file: nothing to trust
    file = Path(here.file)
    file.write_text("allow\n")
    error = refused(here)
    assert error.brief == f"{file} has not been adopted yet, so nothing of it counts"
    assert "+allow" in error.details.splitlines()
    trust.adopt(here, "allow\n")
    trust.check(here, *trust.texts(here))
    assert Path(here.adopted).stat().st_mode & 0o777 == 0o600
    assert Path(here.state).stat().st_mode & 0o777 == 0o700
    file.write_text("allow more\n")
    error = refused(here)
    assert error.brief == f"{file} has changed since you adopted it"
    assert {"-allow", "+allow more"} <= set(error.details.splitlines())
    file.unlink()
    assert refused(here).brief == f"{file} has been removed since you adopted it"
    trust.forget(here)
    trust.check(here, *trust.texts(here))
    trust.forget(here)


@pytest.mark.parametrize("text", ["a", "a\r\n", "a\n\n", " a\n", "A\n", "a\u200b\n", ""])
def test_any_other_bytes_are_refused_and_shown(here: Project, text: str) -> None:
    trust.adopt(here, "a\n")
    Path(here.file).write_bytes(text.encode())
    assert refused(here).details


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jx", r"+\x1b[2Jx"),
        ("a\rb", r"+a\rb"),
        ("a\u202eb", r"+a\u202eb"),
        ("a\u200bb", r"+a\u200bb"),
        ("a\x85b", r"+a\x85b"),
        ("a\u2028b", r"+a\u2028b"),
        ("a\U000e0041b", r"+a\U000e0041b"),
        ("a\x0bb", r"+a\x0bb"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_escaped(text: str, shown: str) -> None:
    lines = trust.difference(None, text + "\n").splitlines()
    assert lines[-1] == shown
    assert len(lines) == 4, "one line, however the character splits"


def test_an_error_is_cut_but_what_is_adopted_is_shown_whole(here: Project) -> None:
    long = "# padding\n" * 500 + 'allow = ["exfil.example.com"]\n'
    Path(here.file).write_text(long)
    details = refused(here).details.splitlines()
    assert len(details) == trust.SHOWN_LINES_LIMIT + 1
    assert details[-1] == "… 104 more lines"
    assert '+allow = ["exfil.example.com"]' in trust.difference(None, long).splitlines()


def test_a_world_writable_adopted_copy_decides_nothing(here: Project) -> None:
    trust.adopt(here, "a\n")
    Path(here.adopted).chmod(0o666)
    with pytest.raises(Exception, match="writable by other users"):
        trust.texts(here)
