"""`cloister policy show`: every grant and ban, where it comes from, and what this release cannot do yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister import cli
from cloister.policy.codec import parse_policy

CONFIG = """
[network]
allow = ["api.example.com", "tcp://db.example.com:5432"]
deny = ["bad.example.com"]
[[network.rule]]
host = "plain.example.com"
scheme = "http"
methods = ["GET", "HEAD"]
paths = ["/repos/**"]
[[network.rule]]
host = "wiki.corp.example.com"
addresses = ["10.0.0.0/8"]
[network.hosts]
"db.example.com" = "127.0.0.1:15432"
"""


@pytest.fixture(autouse=True)
def project(enter_project: Callable[[str], Path]) -> Path:
    return enter_project(CONFIG)


def show(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert cli.dispatch(["policy", "show", *options]) == 0
    return capsys.readouterr().out


def line_with(text: str, output: str) -> str:
    """The one line that holds `text`, with its columns one space apart."""
    (line,) = [line for line in output.splitlines() if text in line]
    return " ".join(line.split())


def test_it_shows_each_rule_with_ports_id_and_conditions(capsys: pytest.CaptureFixture[str]) -> None:
    output = show(capsys)
    assert line_with("allow:api", output) == "api.example.com :80,443 user:allow:api.example.com"
    assert line_with("allow:tcp", output) == "tcp://db.example.com :5432 user:allow:tcp://db.example.com:5432"
    assert line_with("rule:1", output).endswith(
        "user:rule:1:plain.example.com methods GET, HEAD; paths /repos/**"
    )
    assert line_with("rule:2", output).endswith("may resolve into 10.0.0.0/8")
    assert line_with("bad.", output) == "bad.example.com :80,443,5432 user:deny:bad.example.com", (
        "on every port"
    )
    assert line_with("127.0.0.1", output) == "db.example.com 127.0.0.1 port 15432"


def test_it_says_what_presets_leave_out_and_what_files_count(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = show(capsys)
    assert "profile agent: package registries, model APIs" in output
    assert f"  {tmp_path}/home/.config/cloister/config.toml\n" in output
    assert f"  {project}/cloister.toml  (does not exist)\n" in output
    assert "by name only; left out: upload.pypi.org" in line_with("preset:pypi:pypi.org", output)
    assert "by name only: what is sent there is not read" in output
    assert "read only: requests are read, and publishing does not pass" in output
    assert "everything else is refused" in output


def test_offline_means_nothing_and_bans_stay(capsys: pytest.CaptureFixture[str]) -> None:
    output = show(capsys, "--profile", "offline")
    assert "allowed: nothing" in output
    assert "by name only" not in output
    assert line_with("bad.", output) == "bad.example.com :80,443 user:deny:bad.example.com"


def test_full_says_that_it_is_everything_public(capsys: pytest.CaptureFixture[str]) -> None:
    output = show(capsys, "--profile", "full")
    assert line_with("profile:full", output).startswith("(any public name) :80,443")


def test_json_is_the_plan_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    shown = json.loads(show(capsys, "--json"))
    assert shown["profile"] == "agent"
    assert shown["hosts"] == {"db.example.com": {"address": "127.0.0.1", "port": 15432}}
    policy = parse_policy(shown["policy"])
    assert "user:allow:api.example.com" in {grant.id for grant in policy.grants}
    assert [ban.id for ban in policy.bans] == ["user:deny:bad.example.com"]


def test_an_unknown_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["policy", "show", "--profile", "ful"]) == 2
    assert 'did you mean "full"?' in capsys.readouterr().err


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["policy"]) == 2


CREDENTIALS = """
[sandbox]
profile = "agent"
[network]
allow = ["pinned.example.com"]
passthrough = ["*.pinned.example.com", "pinned.example.com"]
[[network.rule]]
host = "other.example.com"
ports = [8443]
methods = ["GET"]
[[credential]]
name = "lab"
source = "env:THE_VARIABLE"
preset = "gitlab"
read_only = true
confirm = true
repositories = ["acme/widget"]
[[credential]]
name = "far"
source = "env:THE_OTHER"
hosts = ["a.example.com"]
inject = "header:x-key:Token {}"
[git]
push = ["refs/heads/agent/*"]
force = true
[ssh]
agent = true
keys = ["ada@laptop"]
hosts = ["git.example.com"]
"""


def test_it_shows_credentials_pushes_and_keys_and_no_value(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_VARIABLE", "the-real-value")
    (project.parent / "home/.config/cloister/config.toml").write_text(CREDENTIALS)
    output = show(capsys)
    assert line_with("env:THE_VARIABLE", output).startswith(
        "lab env:THE_VARIABLE gitlab.com :443 basic:oauth2; paths /**/info/refs, "
    )
    assert line_with("private-token", output) == (
        "gitlab.com :443 header:private-token; repositories acme/widget; read only; asks first"
    )
    assert line_with("env:THE_OTHER", output) == "far env:THE_OTHER a.example.com :443 header:x-key:Token {}"
    assert line_with("credential:far:", output) == "a.example.com :443 credential:far:a.example.com"
    assert "never decrypted:\n  *.pinned.example.com\n  pinned.example.com\n" in output
    assert "git push (also: force):\n  refs/heads/agent/*\n" in output
    assert "SSH agent: ada@laptop\n  signs for git.example.com; you are asked each time\n" in output
    assert "the-real-value" not in output + show(capsys, "--json")


def test_a_credential_that_nothing_opens_is_said_to_be_out_of_reach(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.parent / "home/.config/cloister/config.toml").write_text(CREDENTIALS)
    output = show(capsys, "--profile", "registries")
    assert line_with("env:THE_OTHER", output).endswith("not reachable: nothing allows it")


def test_without_a_word_on_pushes_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "git push, where requests are read: nothing" in show(capsys)
