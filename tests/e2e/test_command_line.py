"""What is typed wrongly: one sentence, what to type next, the right exit code, and nothing half started."""

from __future__ import annotations

import os
import shlex

import pytest

from tests.world import Cloister, Result

CONFIGURATION = ".config/cloister/config.toml"


def said(done: Result, code: int, *parts: str) -> None:
    """A refusal of ours, and no traceback."""
    assert done.code == code, done
    assert done.err.startswith("cloister: "), done
    assert "Traceback" not in done.err
    for part in parts:
        assert part in done.err, done


def nothing_is_left(cloister: Cloister) -> None:
    assert list(cloister.project.iterdir()) == []
    projects = cloister.home / ".local/state/cloister/projects"
    assert list(projects.glob("*/runs/*")) == []
    assert cloister.processes() == set()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("rnu -- true", ["no command 'rnu'", "did you mean: cloister run"]),
        ("run --profil offline -- true", ["'--profil'", "did you mean: --profile"]),
        ("run --bogus -- true", ["'--bogus'", "run: cloister run --help"]),
        ("policy show --jsno", ["did you mean: --json"]),
        ("policy shwo", ["'shwo'", "cloister policy --help"]),
        ("why pypi.org extra", ["'extra'", "cloister why --help"]),
        ("doctor x", ["'x'", "cloister doctor --help"]),
        ("run --profile ofline -- true", ['found: "ofline"', 'did you mean "offline"']),
        ("run --allow '*' -- true", ['"*" would allow every host', "expected:", 'found: "*"']),
        ("run --allow '*.com' -- true", ['below "com"']),
        ("run --allow https://x/ -- true", ["a scheme"]),
        ("run --allow x/path -- true", ["a path"]),
        ("run --allow x:99999 -- true", ["99999 is no port"]),
        ("run --allow 192.0.2.1 -- true", ["IP address"]),
        ("run --memory foo -- true", ["--memory", 'found: "foo"']),
        ("run --cpus 0 -- true", ["--cpus", "found: 0"]),
        ("run --pids 1.5 -- true", ["--pids", "1.5"]),
        ("run -e 1A=x -- true", ["--env", 'found: "1A"']),
        ("run --unmask ../x -- true", ["--unmask", 'found: "../x"']),
        ("run -C '' -- true", ["-C: the directory is empty"]),
        ("run", ["a command is missing"]),
        ("why ''", ["is no URL"]),
        ("why 'a b'", ["is no URL"]),
        ("why foo://x", ["the scheme", "use one of"]),
        ("why x:99999", ["1 to 65535"]),
        ("why --method 'G T' http://pypi.org", ["--method"]),
        ("logs --since 5", ["--since", "10m"]),
        ("logs --sandbox a --all", ["not allowed with"]),
    ],
)
def test_a_slip_on_the_command_line(user_cloister: Cloister, arguments: str, parts: list[str]) -> None:
    said(user_cloister(*shlex.split(arguments)), 2, *parts)
    nothing_is_left(user_cloister)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("foo = 1", [':1: unknown key "foo"', "expected: sandbox, network"]),
        ("[netwrok]", ['did you mean "network"?']),
        ('[network]\nalow = ["x.com"]', [':2: unknown key "alow"', 'did you mean "allow"?']),
        ('[network]\nallow = "x.com"', [":2:", 'found: "x.com"', 'write allow = ["x.com"]']),
        ("network = 3", [":1:", "expected: a table\n", "found: 3"]),
        ("[network\nx", [":1: this is not valid TOML"]),
        ('[network]\npresets = ["pipy"]', [":2:", 'did you mean "pypi"?']),
        ('[sandbox]\nprofile = "agnet"', [":2:", 'did you mean "agent"?']),
        ('[sandbox]\ncpus = "2"', [":2:", "expected: a number"]),
        ('[sandbox]\nruntime = "kubernetes"', [":2:", "later release"]),
        ('[network.hosts]\n"db.example.com" = "host.local"', [":2:", "192.0.2.1:8443"]),
        ('[sandbox]\nread_only = ["/nonexistent"]', [":2:", "does not exist here", 'found: "/nonexistent"']),
        ('[network]\nupstream_ca = ["/nonexistent.pem"]', [":2:", "does not exist"]),
        ("[credential.x]\na = 1", [":1:", "expected: a list of tables"]),
        (
            '[[credential]]\nname = "x"\nsource = "env:X"\ninject = "bearer"',
            [":1:", "has no hosts", "name its hosts"],
        ),
        ('[git]\npush = ["main"]', [":2:", 'did you mean "refs/heads/main"?']),
    ],
)
def test_a_fault_in_the_configuration(user_cloister: Cloister, text: str, parts: list[str]) -> None:
    user_cloister.configure(text)
    said(user_cloister.run("true"), 125, CONFIGURATION, *parts)
    nothing_is_left(user_cloister)


@pytest.mark.parametrize(
    "kind", ["fifo", "readable by nobody", "of another user", "writable by all", "bytes"]
)
def test_a_configuration_file_that_is_none(user_cloister: Cloister, kind: str) -> None:
    path = user_cloister.home / CONFIGURATION
    user_cloister.configure("")
    assert user_cloister.run("true").code == 0  # so that there is a stored plan to compare it with
    match kind:
        case "fifo":
            path.unlink()
            os.mkfifo(path)
            user_cloister.own(path)
            expected = "not a regular file"
        case "readable by nobody":
            path.chmod(0)
            expected = "Permission denied"
        case "of another user":
            if os.geteuid() != 0:
                pytest.skip("needs root to give a file away")
            path.chmod(0o644)
            os.chown(path, 65534, 65534)
            path.write_text("# changed\n")
            expected = "belongs to another user"
        case "writable by all":
            path.write_text("# changed\n")
            path.chmod(0o666)
            expected = "chmod go-w"
        case _:
            path.write_bytes(b"\xff\xfe")
            expected = "not UTF-8"
    said(user_cloister.run("true", timeout_s=10), 125, f"{CONFIGURATION}:1: ", expected, "→")


def test_a_directory_in_the_place_of_a_configuration_is_none(cloister: Cloister) -> None:
    """A live sandbox holds empty ones as mount points; a second start meanwhile must not stumble over them."""
    cloister.directory(cloister.project / "cloister.toml")
    done = cloister("run", "--profile", "offline", "--", "true")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["nosuch"], 127, "'nosuch' was not found in the sandbox's PATH"),
        (["./nosuch"], 127, "'./nosuch' does not exist"),
        (["./plain"], 126, "'./plain' is not an executable file"),
        (["/etc"], 126, "'/etc' is not an executable file"),
    ],
)
def test_a_command_that_cannot_run(cloister: Cloister, command: list[str], code: int, message: str) -> None:
    plain = cloister.write(cloister.project / "plain", "")
    said(cloister.run(*command), code, message)
    plain.unlink()
    nothing_is_left(cloister)


@pytest.mark.parametrize("arguments", ["run -- true", "logs", "init", "trust", "policy show", "why pypi.org"])
def test_a_current_directory_that_is_gone(user_cloister: Cloister, arguments: str) -> None:
    gone = user_cloister.directory(user_cloister.project / "gone")
    user_cloister.prefix = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh"]
    said(user_cloister(*shlex.split(arguments), cwd=gone), 125, "current directory does not exist", "→")
    nothing_is_left(user_cloister)


@pytest.mark.parametrize("arguments", ["run -C {} -- true", "logs -C {}", "init -C {}", "policy show -C {}"])
def test_a_workspace_that_is_missing(cloister: Cloister, arguments: str) -> None:
    said(cloister(*shlex.split(arguments.format("/nonexistent"))), 125, "'/nonexistent' does not exist", "→")
    nothing_is_left(cloister)


def test_a_home_that_is_missing(cloister: Cloister) -> None:
    said(cloister.run("true", environment={"HOME": "/nonexistent"}), 125, "/nonexistent", "set HOME")


def test_bubblewrap_is_missing(cloister: Cloister) -> None:
    script = 'mount --bind "$0" /usr/bin/bwrap && exec "$@"'
    plain = cloister.write(cloister.base / "plain", "")
    if os.geteuid() != 0:
        pytest.skip("needs root to hide a program")
    cloister.prefix = ["unshare", "--mount", "sh", "-c", script, str(plain)]
    said(cloister.run("true"), 125, "bubblewrap", "is not installed", "apt-get install bubblewrap")
    nothing_is_left(cloister)


def test_state_that_cannot_be_written(user_cloister: Cloister) -> None:
    assert user_cloister.run("true").code == 0
    state = user_cloister.state
    log = state / "audit" / "audit.jsonl"
    log.chmod(0)
    said(user_cloister("logs"), 125, str(log), "Permission denied")
    said(user_cloister.run("true"), 125, str(log), "cannot be written")
    log.chmod(0o600)
    state.joinpath("runs").chmod(0o500)
    said(user_cloister.run("true"), 125, str(state / "runs"), "Permission denied", "→")
    state.joinpath("runs").chmod(0o700)
    nothing_is_left(user_cloister)
    done = user_cloister.run("true", environment={"XDG_STATE_HOME": "/proc/nothing"})
    said(done, 125, "/proc/nothing")


def test_trust_asks_a_person(user_cloister: Cloister) -> None:
    file = user_cloister.write(
        user_cloister.project / "cloister.toml", '[network]\nallow = ["a.example.com"]\n'
    )
    said(user_cloister.run("true"), 125, "has not been adopted", "+allow", "cloister trust")
    done = user_cloister("trust")
    assert done.code == 125
    assert "cloister: nobody can be asked here" in done.err
    assert user_cloister("trust", "--yes").code == 0
    assert user_cloister.run("true").code == 0
    file.write_text('[network]\nallow = ["*.com"]\n')
    said(user_cloister.run("true"), 125, "has changed since you adopted it")
    said(user_cloister("trust", "--yes"), 125, "cloister.toml:2:", "then run: cloister trust")
    file.unlink()
    said(user_cloister.run("true"), 125, "has been removed since you adopted it")


def test_why_tells_by_its_exit_code(user_cloister: Cloister) -> None:
    assert user_cloister("why", "https://pypi.org/simple/").code == 0
    refused = user_cloister("why", "https://exfil.example.net")
    assert refused.code == 1
    assert "to [network] allow" in refused.out


def test_a_variable_that_is_not_there_is_mentioned(user_cloister: Cloister) -> None:
    done = user_cloister("run", "-e", "NO_SUCH_VARIABLE", "--", "true")
    assert (done.code, done.err.count("NO_SUCH_VARIABLE")) == (0, 1)


@pytest.mark.parametrize("arguments", ["help", "policy show", "why pypi.org", "doctor", "logs --json --all"])
@pytest.mark.parametrize("where", ["| true", ">/dev/full", ">&-", ">&- 2>&-"])
def test_output_that_goes_nowhere(user_cloister: Cloister, arguments: str, where: str) -> None:
    user_cloister.prefix = ["sh", "-c", f'"$@" {where}', "sh"]
    done = user_cloister(*shlex.split(arguments))
    assert "Traceback" not in done.err
    assert "bug in cloister" not in done.err
    if where == ">/dev/full" and not arguments.startswith("logs"):
        said(done, 125, "No space left on device")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(cloister: Cloister, closed: str) -> None:
    """Their numbers must not go to the gateway's socket, which would then be taken for a stream."""
    cloister.prefix = ["sh", "-c", f'"$@" {closed}', "sh"]
    script = "curl -s -o /dev/null -w '%{http_code}' http://refused.example.net > code; ls /proc/$$/fd > open"
    assert cloister.sh(script).code == 0
    assert (cloister.project / "code").read_text() == "403"
    assert {"0", "1", "2"} <= set((cloister.project / "open").read_text().split())


def test_help_of_every_command(user_cloister: Cloister) -> None:
    overview = user_cloister("help")
    assert overview.code == 0
    for name in ("run", "init", "trust", "policy", "why", "logs", "doctor"):
        assert name in overview.out
        by_option, by_command = user_cloister(name, "--help"), user_cloister("help", name)
        assert by_option.code == by_command.code == 0
        assert by_option.out == by_command.out != overview.out
