"""`cloister trust` and what runs before it: the agent's changes have no effect until adopted (ATTACKS CFG-1)."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from cloister import cli

ALLOW = '[network]\nallow = ["api.example.com"]\n'
MORE = '[network]\nallow = ["api.example.com", "evil.com"]\n'


class Terminal(io.StringIO):
    """A standard input that somebody types at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(directory)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return directory


def allowed(host: str) -> bool:
    """Whether a sandbox of the current directory would reach `host`."""
    return cli.dispatch(["why", host]) == 0


def adopted_copies(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "home").rglob("adopted.toml"))


def test_a_file_counts_only_once_adopted(project: Path, tmp_path: Path) -> None:
    (project / "cloister.toml").write_text(ALLOW)
    assert not allowed("api.example.com")
    assert cli.dispatch(["trust", "--yes"]) == 0
    assert allowed("api.example.com")
    (copy,) = adopted_copies(tmp_path)
    assert copy.read_text() == ALLOW
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.parent.stat().st_mode) == 0o700


def test_a_change_has_no_effect_and_is_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "cloister.toml").write_text(ALLOW)
    cli.dispatch(["trust", "--yes"])
    (project / "cloister.toml").write_text(MORE)
    capsys.readouterr()
    assert cli.dispatch(["why", "evil.com"]) == 125, "neither the old nor the new text is used"
    said = capsys.readouterr().err
    assert "has changed since you adopted it" in said
    assert '+allow = ["api.example.com", "evil.com"]' in said
    assert said.endswith("→ read the difference; if you want it: cloister trust\n")


def test_a_removed_file_is_a_change_too(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or an agent could get rid of the bans in it."""
    file = project / "cloister.toml"
    file.write_text('[sandbox]\nprofile = "offline"\n')
    cli.dispatch(["trust", "--yes"])
    file.unlink()
    capsys.readouterr()
    assert cli.dispatch(["why", "pypi.org"]) == 125
    assert "has been removed since you adopted it" in capsys.readouterr().err
    assert cli.dispatch(["trust", "--yes"]) == 0
    assert "Forgotten" in capsys.readouterr().out
    assert allowed("pypi.org")


@pytest.mark.parametrize(
    ("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1), ("yn\n", 1)]
)
def test_the_answer_on_a_terminal(
    answer: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("cloister.toml").write_text(ALLOW)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert cli.dispatch(["trust"]) == code
    said = capsys.readouterr().out
    assert '+allow = ["api.example.com"]' in said
    assert "Adopt this? [y/N]" in said
    assert len(adopted_copies(tmp_path)) == (1 if code == 0 else 0)


def test_without_a_terminal_nobody_is_taken_to_agree(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "cloister.toml").write_text(ALLOW)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert cli.dispatch(["trust"]) == 125
    printed = capsys.readouterr()
    assert '+allow = ["api.example.com"]' in printed.out, "what is to be read comes first"
    assert "cloister trust --yes" in printed.err
    assert not adopted_copies(tmp_path)


def test_a_faulty_file_is_never_adopted(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "cloister.toml").write_text('[network]\nallow = ["*.com"]\n')
    assert cli.dispatch(["trust", "--yes"]) == 125
    said = capsys.readouterr().err
    assert f'{project}/cloister.toml:2: [network] allow: anybody can register a name below "com"' in said
    assert not adopted_copies(tmp_path)


def test_the_difference_cannot_paint_the_terminal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bidirectional overrides (Trojan Source), what has no width, line separators, carriage returns."""
    text = '# \u202egnihtoN\u202c \u200b\u2028\n[network]\nallow = ["evil.com"]\r\n'
    (project / "cloister.toml").write_text(text, newline="")
    assert cli.dispatch(["trust", "--yes"]) == 0
    said = capsys.readouterr().out
    assert not set(said) & set("\r\u202e\u202c\u200b\u2028")
    assert r"+# \u202egnihtoN\u202c \u200b\u2028" in said
    assert r'+allow = ["evil.com"]\r' in said


def test_an_escape_sequence_in_a_changed_file_is_shown_as_text(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "cloister.toml").write_bytes(b"# \x1b[2J\x1b[H all is well \xc2\x9b\n")
    assert cli.dispatch(["why", "x.com"]) == 125
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\x9b" not in said
    assert r"+# \x1b[2J\x1b[H all is well \x9b" in said


def test_what_is_adopted_already_is_said_to_be(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "cloister.toml").write_text(ALLOW)
    cli.dispatch(["trust", "--yes"])
    assert cli.dispatch(["trust"]) == 0
    assert "is adopted already" in capsys.readouterr().out


def test_nothing_to_trust(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["trust"]) == 125
    assert "cloister init" in capsys.readouterr().err


def test_the_adopted_copy_must_be_the_users_own(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "cloister.toml").write_text(ALLOW)
    cli.dispatch(["trust", "--yes"])
    adopted_copies(tmp_path)[0].chmod(0o666)
    capsys.readouterr()
    assert not allowed("api.example.com")
    assert "writable by other users" in capsys.readouterr().err


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_adopted_copy_must_not_be_another_users(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "cloister.toml").write_text(ALLOW)
    cli.dispatch(["trust", "--yes"])
    os.chown(adopted_copies(tmp_path)[0], 12345, 12345)
    capsys.readouterr()
    assert not allowed("api.example.com")
    assert "belongs to another user (uid 12345), who could change it" in capsys.readouterr().err
