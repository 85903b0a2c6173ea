"""`cloister why`: the words and the exit code, as a person gets them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloister import cli

CONFIG = """
[network]
allow = ["api.example.com", "tcp://db.example.com:5432", "*.example.org:8443"]
deny = ["bad.example.org"]
[[network.rule]]
host = "plain.example.com"
scheme = "http"
methods = ["GET"]
paths = ["/repos/**"]
[network.hosts]
"db.example.com" = "127.0.0.1:15432"
"""


@pytest.fixture(autouse=True)
def project(enter_project: Callable[[str], Path]) -> Path:
    """A home with a configuration of the user's, and an empty project, which is the current directory."""
    return enter_project(CONFIG)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "https://api.example.com/v1?key=1#x",
            'allowed: "api.example.com:443" is granted by "user:allow:api',
        ),
        ("API.Example.com.", 'allowed: "api.example.com:443" is granted by'),
        ("http://api.example.com", 'allowed: "api.example.com:80" is granted by'),
        ("https://user:secret@api.example.com/", 'allowed: "api.example.com:443"'),
        (
            "https://pypi.org/simple/",
            'granted by "preset:pypi:pypi.org"\n  note: by name only; left out: upload',
        ),
        ("a.example.org:8443", 'granted by "user:allow:*.example.org:8443"'),
        ("db.example.com:5432", "\n  pinned by you to 127.0.0.1 port 15432\n"),
        ("postgres://db.example.com/name", 'granted by "user:allow:tcp://db.example.com:5432"'),
        ("http://plain.example.com/repos/x", 'granted by "user:rule:1:plain.example.com"'),
        ("plain.example.com:80/repos/x", 'granted by "user:rule:1:plain.example.com"'),
        ("evil.com --profile full", 'granted by "profile:full"'),
    ],
)
def test_allowed(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["why", *line.split()]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "evil.com",
            'refused: no rule grants "evil.com:443"\n  → add "evil.com" to [network] allow in cloister.toml',
        ),
        ("evil.com:8443", '→ add "evil.com:8443" to [network] allow'),
        ("ssh://git.example.com", '→ add "tcp://git.example.com:22" to [network] allow'),
        ("https://api.example.com.evil.com", 'refused: no rule grants "api.example.com.evil.com:443"'),
        ("https://example.org:8443", 'refused: no rule grants "example.org:8443"'),
        (
            "bad.example.org:8443",
            'is banned by "user:deny:bad.example.org"\n  → bans win over grants: remove',
        ),
        ("tcp://api.example.com:443", "grants TLS and HTTP"),
        ("https://plain.example.com/repos/x", 'no rule grants "plain.example.com:443" (granted: 80)'),
        ("http://plain.example.com/repos/../x", "can be read in two ways"),
        ("http://plain.example.com/repos/x --method POST", "does not grant POST on this path"),
        ("https://upload.pypi.org/legacy/", 'no rule grants "upload.pypi.org:443"'),
        ("api.example.com --profile offline", "\n  profile: offline\n"),
        ("localhost --profile full", "refused: no rule grants"),
        ("printer --profile full", "refused: no rule grants"),
        ("metadata.google.internal --profile full", "refused: no rule grants"),
        ("127.0.0.1", "the host is an IP address"),
        ("http://169.254.169.254/latest", "→ name the host"),
        ("2130706433 --profile full", "the host is an IP address"),
        ("[::1]:443", "IPv6"),
        ("::1", "IPv6"),
    ],
)
def test_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["why", *line.split()]) == 1
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gopher://x.example.com"], 'the scheme "gopher" is not known'),
        (["tcp://db.example.com"], "tcp:// needs a port"),
        (["api.example.com:99999"], "the port is not a number from 1 to 65535"),
        (["api.example.com:x"], "the port is not a number from 1 to 65535"),
        ([""], "is no URL"),
        (["a b.com"], "is no URL"),
        (["a.com", "--method", "GET /"], "is no HTTP method"),
        (["a.com", "--profile", "agnet"], 'did you mean "agent"?'),
    ],
)
def test_bad_questions(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.dispatch(["why", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_unadopted_project_file_is_not_taken_for_the_policy(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "cloister.toml").write_text('[network]\nallow = ["evil.com"]\n')
    assert cli.dispatch(["why", "evil.com"]) == 125
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "has not been adopted yet" in printed.err
    assert '+allow = ["evil.com"]' in printed.err


def test_it_writes_nothing(project: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    cli.dispatch(["why", "evil.com"])
    assert sorted(tmp_path.rglob("*")) == before


CREDENTIALS = """
[network]
presets = ["gitlab"]
allow = ["pinned.example.com", "api.example.com"]
passthrough = ["pinned.example.com"]
[[credential]]
name = "github"
source = "env:NEVER_READ"
preset = "github"
repositories = ["acme/widget"]
read_only = true
[[credential]]
name = "lab"
source = "env:NEVER_READ"
preset = "gitlab"
confirm = true
[git]
push = ["refs/heads/agent/*"]
"""


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("https://github.com/acme/widget.git/info/refs?service=git-upload-pack", 0,
         '\n  decrypted: each request is judged\n  credential "github" is put in (basic:x-access-token)\n'),
        ("https://github.com/other/thing", 0, 'without credential "github": it is for other paths or repositories'),
        ("https://api.github.com/repos/acme/widget/issues --method POST", 1,
         'refused: credential "github" is for reading only, and this request writes'),
        ("https://github.com/acme/widget.git/info/refs?service=git-receive-pack", 1, "for reading only"),
        ("https://gitlab.com/a/b.git/info/refs?service=git-receive-pack", 0,
         "\n  a push: to refs/heads/agent/* alone ([git] push)\n"),
        ("https://gitlab.com/a/b.git/info/refs", 0,
         'credential "lab" is put in (basic:oauth2), after you have been asked'),
        ("https://gitlab.com/api/v4/projects/a%2Fb/issues", 0, '"lab" is put in (header:private-token)'),
        ("https://pinned.example.com/", 0, "\n  not decrypted: it is one of [network] passthrough\n"),
        ("https://api.example.com/", 0, "\n  not decrypted: no credential and no rule of methods or paths needs it\n"),
        ("http://api.example.com/", 0, "\n  plain HTTP: read, and no credential is ever sent\n"),
        ("https://registry.npmjs.org/@scope%2fname", 0, "\n  decrypted: each request is judged\n"),
        ("https://registry.npmjs.org/@scope%2fname --method PUT", 1, "that host is for reading only"),
        ("https://registry.npmjs.org/-/npm/v1/security/advisories/bulk --method POST", 0, ":post"),
    ],
)  # fmt: skip
def test_credentials_and_what_is_read(
    line: str, code: int, said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project.parent / "home/.config/cloister/config.toml"
    config.write_text(CREDENTIALS)
    assert cli.dispatch(["why", *line.split()]) == code
    output = capsys.readouterr().out
    assert said in output
    assert "NEVER_READ" not in output
