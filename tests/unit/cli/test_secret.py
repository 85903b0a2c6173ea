"""`cloister secret list|test|explain`: what is told of credentials, and that a value never is."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.cli import secret
from cloister.errors import UsageError
from tests.unit.cli.live_gateway import LiveGateway

CONFIG = """
[[credential]]
name = "api"
source = "env:API_TOKEN"
hosts = ["api.example.com", "*.example.org"]
inject = "bearer"
env = "API_KEY"
[[credential]]
name = "careful"
source = "file:~/careful"
hosts = ["careful.example.com"]
inject = "header:x-key"
env = "CAREFUL_KEY"
confirm = true
read_only = true
[[credential]]
name = "git"
source = "exec:my-vault git"
hosts = ["git.example.com"]
inject = "basic:me"
env = "GIT_TOKEN"
repositories = ["acme/widget"]
"""


@pytest.fixture(autouse=True)
def project(enter_project: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("API_TOKEN", "s3cret-token")
    return enter_project(CONFIG)


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    secret.configure(parser)
    return secret.execute(parser.parse_args(words))


def rows(output: str) -> dict[str, str]:
    """Name → the rest of its row, with one space between."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in output.splitlines()}


def test_list_without_a_sandbox_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list") == 0
    found = rows(capsys.readouterr().out)
    assert found == {
        "name": "source bound to place expires confirm state",
        "api": "env:API_TOKEN api.example.com, *.example.org header authorization - no no sandbox runs",
        "careful": "file:~/careful careful.example.com header x-key - yes no sandbox runs",
        "git": "exec:my-vault git git.example.com header authorization - no no sandbox runs",
    }


def test_list_asks_live_sandboxes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LiveGateway(project) as gateway:
        assert gateway.get("api") == b"s3cret-token"
        waiting = gateway.begin("careful")
        assert call("list") == 0
        output = capsys.readouterr().out
        assert rows(output)["api"].endswith("- no in use")
        assert rows(output)["careful"].endswith("- yes waits for your answer")
        gateway.decide("careful", allowed=False)
        assert "refused" in str(waiting.exception(5))
        assert call("list") == 0
        output += capsys.readouterr().out
        assert rows(output)["careful"].endswith(
            'yes refused the user has refused the use of credential "careful"'
        )
        with LiveGateway(project, "other-000002"):
            assert call("list", "--json") == 0
        output += capsys.readouterr().out
        assert "s3cret" not in output
        found = {entry["name"]: entry for entry in json.loads(output[output.index("[\n") :])}
        assert set(found["api"]["sandboxes"]) == {"000001", "000002"}
        assert found["api"]["sandboxes"]["000001"]["state"] == "in use"
        assert found["api"]["sandboxes"]["000002"]["state"] == "not used yet"


def test_a_socket_that_a_killed_gateway_left_is_no_sandbox(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LiveGateway(project) as gateway:
        path = gateway.path
    path.write_text("")
    assert call("list") == 0
    assert rows(capsys.readouterr().out)["api"].endswith("no sandbox runs")


def test_test_says_what_works_and_what_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("test", "api") == 0
    assert capsys.readouterr().out == (
        "api: works: 12 bytes, does not say when it expires, fingerprint a81e\n"
    )
    assert call("test") == 1
    output = capsys.readouterr().out
    assert "api: works" in output
    assert 'careful: fails\n  credential "careful" cannot be had from file: there is no such file\n' in output
    assert (
        'git: fails\n  credential "git" cannot be had from exec: the program "my-vault" is not on PATH'
        in output
    )
    assert "s3cret" not in output


def test_test_tells_what_is_too_short_to_be_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "12345")
    assert call("test", "api") == 0
    assert capsys.readouterr().out.endswith("; too short to be masked in answers\n")


def test_test_tells_the_end(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    program = tmp_path / "my-vault"
    program.write_text('#!/bin/sh\necho "{\\"value\\": \\"s3cret\\", \\"expires_in\\": $LIFE}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LIFE", "3000")
    assert call("test", "git") == 0
    assert "expires in 50 min" in capsys.readouterr().out
    monkeypatch.setenv("LIFE", "-7200")
    assert call("test", "git") == 1
    assert "a value that expired 2 h ago" in capsys.readouterr().out
    monkeypatch.setenv("PATH", f"{project}:{os.environ['PATH']}")
    planted = project / "my-vault"
    planted.write_text("#!/bin/sh\necho evil > evil\n")
    planted.chmod(0o755)
    monkeypatch.setenv("LIFE", "3000")
    assert call("test", "git") == 0, "what lies in the workspace is not run"
    assert not (project / "evil").exists()


def test_test_tries_whether_a_value_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "s3crét")
    assert call("test", "api") == 1
    output = capsys.readouterr().out
    assert 'the value of credential "api" holds' in output
    assert "s3cr" not in output


def test_explain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("explain", "api") == 0
    output = capsys.readouterr().out
    assert 'credential "api"\n  value from   env:API_TOKEN\n  asks you     never' in output
    assert "  api.example.com :443  header authorization: Bearer …\n" in output
    assert "  *.example.org :443  header authorization: Bearer …\n" in output
    assert "  variable API_KEY\n" in output
    assert "CAREFUL_KEY" not in output
    assert "s3cret" not in output
    assert call("explain", "careful") == 0
    output = capsys.readouterr().out
    assert "before its first use in each sandbox; to answer: cloister approve careful" in output
    assert "requests that write" in output
    assert call("explain", "git") == 0
    output = capsys.readouterr().out
    assert "Basic (user 'me', password …)" in output
    assert "requests about other repositories than acme/widget: without it" in output
    assert "git pushes to other refs than: none" in output


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"there is no credential 'apii'\n  → did you mean: api"):
        call("explain", "apii")
    with pytest.raises(UsageError, match="there are: api, careful, git"):
        call("test", "zzzzzz")


@pytest.mark.parametrize(
    ("left", "text"),
    [(7, "in 7 s"), (119, "in 119 s"), (120, "in 2 min"), (3599, "in 60 min"), (7200, "in 2 h"), (200000, "in 2 days"), (-5, "5 s ago")],
)  # fmt: skip
def test_ends(left: float, text: str) -> None:
    assert secret.ends_in(1000.0 + left, now=1000.0) == text
