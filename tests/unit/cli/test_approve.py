"""`cloister approve`: which sandbox is meant, what is answered."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.cli import approve
from cloister.errors import CloisterError, CredentialError, UsageError
from tests.unit.cli.live_gateway import LiveGateway

CONFIG = """
[[credential]]
name = "api"
source = "env:API_TOKEN"
hosts = ["api.example.com"]
inject = "bearer"
confirm = true
[[credential]]
name = "free"
source = "env:API_TOKEN"
hosts = ["free.example.com"]
inject = "bearer"
"""


@pytest.fixture(autouse=True)
def project(enter_project: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("API_TOKEN", "s3cret")
    return enter_project(CONFIG)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    approve.configure(parser)
    return approve.execute(parser.parse_args(words))


def test_nothing_waits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 1
    with LiveGateway(project):
        assert call("--all") == 1
    assert capsys.readouterr().out == "Nothing waits for an answer.\n" * 2


def test_what_waits_is_listed_and_not_allowed_without_a_terminal(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with LiveGateway(project) as gateway:
        waiting = gateway.begin("api")
        assert call() == 0
        assert capsys.readouterr().out == (
            'project-000001: credential "api" for "host.example.com"\n  → cloister approve api\n'
        )
        assert not waiting.done()
        assert call("api") == 0
        assert (
            capsys.readouterr().out == 'credential "api" of sandbox project-000001: allowed until it ends\n'
        )
        assert waiting.result(5) == b"s3cret"


@pytest.mark.parametrize(
    ("said", "allowed"), [("y\n", True), ("yes\n", True), ("\n", False), ("", False), ("no\n", False)]
)
def test_the_terminal_is_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch, said: str, allowed: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(said))
    with LiveGateway(project) as gateway:
        waiting = gateway.begin("api")
        assert call() == 0
        if allowed:
            assert waiting.result(5) == b"s3cret"
        else:
            with pytest.raises(CredentialError, match="refused"):
                waiting.result(5)


def test_all_and_deny(project: Path) -> None:
    with LiveGateway(project, "project-000001") as one, LiveGateway(project, "project-000002") as two:
        waiting = [one.begin("api"), two.begin("api")]
        assert call("--all") == 0
        assert [each.result(5) for each in waiting] == [b"s3cret", b"s3cret"]
        assert call("--deny", "api") == 0
        for gateway in (one, two):
            with pytest.raises(CredentialError, match="refused"):
                gateway.get("api")
        assert call("api") == 0, "and a no can be taken back"
        assert one.get("api") == b"s3cret"


def test_only_those_that_wait_are_meant_if_any_does(project: Path) -> None:
    with LiveGateway(project, "project-000001") as one, LiveGateway(project, "project-000002") as two:
        waiting = one.begin("api")
        assert call("api") == 0
        assert waiting.result(5) == b"s3cret"
        assert not two.begin("api").done()
        two.decide("api", allowed=False)


def test_from_elsewhere_only_one_can_be_meant(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, elsewhere = tmp_path / "other", tmp_path / "elsewhere"
    other.mkdir()
    elsewhere.mkdir()
    with LiveGateway(project) as one, LiveGateway(other, "other-000001") as two:
        first = one.begin("api")
        monkeypatch.chdir(elsewhere)
        assert call("api") == 0
        assert first.result(5) == b"s3cret"
        with pytest.raises(UsageError, match="several sandboxes have a credential 'api'"):
            call("api")
        second = two.begin("api")
        assert call("api", "-C", str(other)) == 0
        assert second.result(5) == b"s3cret"


def test_what_cannot_be_answered(project: Path) -> None:
    with LiveGateway(project):
        with pytest.raises(CloisterError, match="no live sandbox has a credential 'nope'"):
            call("nope")
        with pytest.raises(CloisterError, match="there is no credential 'free' that asks"):
            call("free")
    with pytest.raises(UsageError, match="both a NAME and --all"):
        call("api", "--all")
    with pytest.raises(UsageError, match="of which credential"):
        call("--deny")
