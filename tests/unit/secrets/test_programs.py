"""Sources that are programs: their command lines, and what becomes of those that fail, hang and babble."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from cloister.errors import CredentialError
from cloister.secret import Secret
from cloister.system.proc import Running
from tests.unit.secrets.conftest import World

LINES = {
    "op://vault/item/field": ("op", ["read", "--no-newline", "op://vault/item/field"]),
    "gh:": ("gh", ["auth", "token"]),
    "gh:github.example.com": ("gh", ["auth", "token", "--hostname", "github.example.com"]),
    "keychain:https:%2F%2Fh": ("secret-tool", ["lookup", "service", "https://h"]),
    "keychain:s/a": ("secret-tool", ["lookup", "service", "s", "account", "a"]),
    "pass:web/x": ("pass", ["show", "web/x"]),
    "exec:my-vault 'a b' c": ("my-vault", ["a b", "c"]),
    'exec:["my-vault", "$(id)"]': ("my-vault", ["$(id)"]),
}


@pytest.mark.parametrize("text", LINES)
def test_command_lines(world: World, text: str) -> None:
    name, argv = LINES[text]
    world.program(name, "echo s3cret")
    assert world.value(text) == b"s3cret"
    assert world.argv(name) == argv


def test_the_keychain_of_macos(world: World) -> None:
    world.program("security", "echo s3cret")
    assert world.value("keychain:s/a", platform="darwin") == b"s3cret"
    assert world.argv("security") == ["find-generic-password", "-w", "-s", "s", "-a", "a"]


def test_pass_gives_its_first_line(world: World) -> None:
    world.program("pass", "printf 's3cret\\nuser: me\\nurl: x\\n'")
    assert world.value("pass:web/x") == b"s3cret"


def test_a_program_has_the_users_environment_no_input_and_no_terminal(world: World) -> None:
    world.environ["OF_THE_USER"] = "yes"
    world.program("vault", 'cat; (: < /dev/tty) 2>/dev/null && echo tty; echo "$OF_THE_USER,$PWD"')
    assert world.value("exec:vault") == b"yes,/"


def test_a_program_cannot_reach_for_the_terminal_or_what_we_read(world: World) -> None:
    world.program("vault", "cat; set -- $(cat /proc/$$/stat); echo $1 $6")  # proc(5): pid and session
    reading, writing = os.pipe()
    os.write(writing, b"typed by the user\n")
    os.close(writing)
    own = os.dup(0)
    os.dup2(reading, 0)
    try:
        pid, session = world.value("exec:vault").split()
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(reading)
    assert pid == session


def test_json_with_an_expiry(world: World) -> None:
    def expires_at(document: object) -> float | None:
        world.secret_file("out.json", json.dumps(document).encode())
        value = world.fetch(f"exec:cat {world.home}/out.json", clock=lambda: 1000.0)
        assert value.secret.reveal() == b"s3cret"
        return value.expires_at

    assert expires_at({"value": "s3cret"}) is None
    assert expires_at({"value": "s3cret", "expires_in": 60}) == 1060.0
    assert expires_at({"value": "s3cret", "expires_at": 5000.5}) == 5000.5
    assert expires_at({"value": "s3cret", "expires_at": "1970-01-01T01:00:00Z"}) == 3600.0


BAD_JSON = [
    {"token": "s3cret"},
    {"value": 5},
    {"value": None},
    {"value": "s3cret", "expires_at": "soon"},
    {"value": "s3cret", "expires_at": "1970-01-01T01:00:00"},
    {"value": "s3cret", "expires_at": True},
    {"value": "s3cret", "expires_in": "60"},
    {"value": "s3cret", "expires_in": 1e300},
]


@pytest.mark.parametrize("document", BAD_JSON, ids=str)
def test_json_that_says_something_else(world: World, document: object) -> None:
    world.secret_file("out.json", json.dumps(document).encode())
    with pytest.raises(CredentialError, match="its JSON is not") as caught:
        world.fetch(f"exec:cat {world.home}/out.json")
    assert "s3cret" not in str(caught.value)


def test_a_value_that_only_looks_like_json(world: World) -> None:
    world.program("vault", "echo '{s3cret'")
    assert world.value("exec:vault") == b"{s3cret"


def failure(world: World, text: str, **how: object) -> CredentialError:
    with pytest.raises(CredentialError) as caught:
        world.fetch(text, **how)
    return caught.value


def test_a_program_that_fails_says_why_and_its_output_is_never_shown(world: World) -> None:
    world.program(
        "op", "echo s3cret-output; echo first >&2; printf 'not signed in\\033[31m\\n\\n' >&2; exit 6"
    )
    error = failure(world, "op://a/b/c")
    assert error.brief == 'credential "thing" cannot be had from op: the program "op" failed (exit code 6)'
    assert error.details == "source: op://a/b/c\nit said: not signed in?[31m"
    assert error.resolution == "mend that, then try: cloister secret test thing"
    assert "s3cret-output" not in str(error)


def test_secrets_in_its_errors_are_masked(world: World) -> None:
    world.environ |= {"OP_SERVICE_TOKEN": "from-environ", "OTHER": "plain"}
    world.program(
        "op", 'echo s3cret-out; echo "bad: s3cret-out known-one $OP_SERVICE_TOKEN $OTHER" >&2; exit 1'
    )
    known = (Secret("other", b"known-one"),)
    assert "it said: bad: *** *** *** plain" in failure(world, "op://a/b/c", known=lambda: known).details


def test_a_program_that_is_not_there(world: World) -> None:
    error = failure(world, "exec:no-such-program-here x")
    assert 'the program "no-such-program-here" is not on PATH' in error.brief
    assert "does not exist" in failure(world, "exec:/no/such x").brief
    (world.programs / "broken").write_text("#!/no/such/interpreter\n")
    (world.programs / "broken").chmod(0o755)
    assert "cannot be started" in failure(world, "exec:broken").brief


def test_a_killed_program(world: World) -> None:
    world.program("vault", "kill -9 $$")
    assert "(signal 9)" in failure(world, "exec:vault").brief


def wait_gone(path: Path) -> None:
    """Until the process whose number is in `path` has ended."""
    pid = int(path.read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]:
                return
        except FileNotFoundError:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} still runs")


def test_a_program_that_hangs_is_killed_with_what_it_started(world: World) -> None:
    world.program("vault", f"echo s3cret; sleep 60 & echo $! > {world.home}/child; sleep 60")
    started = time.monotonic()
    error = failure(world, "exec:vault", deadline_s=0.5)
    assert time.monotonic() - started < 5
    assert 'the program "vault" did not end within 0.5 s, and was killed' in error.brief
    wait_gone(world.home / "child")


def test_a_program_that_closes_its_output_and_hangs(world: World) -> None:
    world.program("vault", "exec >&- 2>&-; sleep 60")
    assert "did not end within" in failure(world, "exec:vault", deadline_s=0.5).brief


def test_a_program_that_prints_for_ever_is_killed(world: World) -> None:
    world.program("vault", f"echo $$ > {world.home}/self; yes s3cret")
    error = failure(world, "exec:vault")
    assert "printed more than 64 KiB" in error.brief
    assert "s3cret" not in str(error)
    wait_gone(world.home / "self")


def test_errors_for_ever_cost_no_memory_and_end_at_the_deadline(world: World) -> None:
    world.program("vault", "yes nonsense >&2")
    assert "did not end within" in failure(world, "exec:vault", deadline_s=0.5).brief


def test_a_helper_in_the_background_is_not_waited_for(world: World) -> None:
    world.program("vault", f"sleep 60 & echo $! > {world.home}/child; echo s3cret")
    started = time.monotonic()
    try:
        assert world.value("exec:vault") == b"s3cret"
        assert time.monotonic() - started < 5
    finally:
        os.kill(int((world.home / "child").read_text()), 9)


def test_running_programs_end_with_the_vault(world: World) -> None:
    running = Running()
    world.program("vault", "sleep 60")
    threading.Timer(0.3, running.kill_all).start()
    assert "(signal 9)" in failure(world, "exec:vault", running=running).brief
    assert "(signal 9)" in failure(world, "exec:vault", running=running).brief, "nor does a new one start"


def test_no_variable_leads_a_program_into_the_sandbox(world: World, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    os.symlink(workspace, tmp_path / "link")
    world.environ |= {
        "PYTHONPATH": f"/usr/lib/x:{workspace}/src",
        "NODE_OPTIONS": f"--require={workspace}/x.js",
        "BASH_ENV": f"{tmp_path}/link/rc",
        "PWD": str(workspace),
        "PYTHONHOME": "/usr",
        "NEAR": f"{workspace}-2/x",
    }
    world.program("vault", "env | sort | tr '\\n' ' '")
    names = {
        entry.partition("=")[0]
        for entry in world.value("exec:vault", untrusted=(str(workspace),)).decode().split()
    }
    assert not names & {"PYTHONPATH", "NODE_OPTIONS", "BASH_ENV"}
    assert names >= {"PYTHONHOME", "NEAR", "HOME", "PATH"}
    assert b"PYTHONPATH" in world.value("exec:vault"), "it is the workspace that is left out"


def test_no_file_of_the_sandbox_is_given_to_a_program(world: World, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "vault.sh").write_text("echo evil")
    world.program("vault", "echo s3cret")
    untrusted = (str(workspace),)
    for text in (f"exec:sh {workspace}/vault.sh", f"exec:vault --config={workspace}/vault.sh"):
        assert "is given a file that the sandbox can write" in failure(world, text, untrusted=untrusted).brief
    assert world.value(f"exec:vault --for {workspace}", untrusted=untrusted) == b"s3cret"


def test_the_sandbox_cannot_place_a_program(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An activated virtual environment of the workspace comes first on PATH, and an agent writes into it."""
    workspace = tmp_path / "workspace"
    (workspace / "bin").mkdir(parents=True)
    world.program("op", "echo evil", workspace / "bin")
    world.program("op", 'echo "good $PATH"')
    monkeypatch.chdir(workspace)
    rest = world.environ["PATH"]
    world.environ["PATH"] = f"{workspace}/bin:bin:.::{rest}"
    untrusted = (str(workspace),)
    assert world.value("op://a/b/c", untrusted=untrusted) == f"good {rest}".encode()
    world.environ["PATH"] = f"bin:.::{rest}"
    assert world.value("op://a/b/c") == f"good {rest}".encode(), (
        "nothing that depends on the directory, whosever it is"
    )
    os.symlink(workspace / "bin" / "op", world.programs / "linked")
    assert "where the sandbox can write" in failure(world, "exec:linked", untrusted=untrusted).brief
    assert (
        "where the sandbox can write" in failure(world, f"exec:{workspace}/bin/op", untrusted=untrusted).brief
    )
