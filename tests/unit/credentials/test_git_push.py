"""Pushes, judged: with real git, whose packs these are and which prints our answers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cloister.credentials.git_push import PushJudge, advertisement_refusal, answer, matches, pkt
from cloister.errors import UntrustedInputError
from cloister.types import PushRule

AGENT = PushRule(refs=("refs/heads/agent/*",))
ZERO, ONE, TWO = "0" * 40, "1" * 40, "2" * 40


def git(*arguments: str, cwd: Path) -> str:
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.test",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.test",
    }  # fmt: skip
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def commands(*triples: tuple[str, str, str], capabilities: str = "report-status side-band-64k") -> bytes:
    lines = [f"{old} {new} {ref}".encode() for old, new, ref in triples]
    lines[0] += b"\0 " + capabilities.encode()
    return b"".join(pkt(line) for line in lines) + b"0000"


def judged(rule: PushRule, body: bytes, *, step: int = 0) -> PushJudge:
    judge = PushJudge(rule)
    for at in range(0, len(body), step or len(body)):
        if judge.feed(body[at : at + (step or len(body))]):
            return judge
    judge.end()
    return judge


@pytest.mark.parametrize(
    ("glob", "ref", "expected"),
    [
        ("refs/heads/agent/*", "refs/heads/agent/x", True),
        ("refs/heads/agent/*", "refs/heads/agent/x/y", False),
        ("refs/heads/agent/*", "refs/heads/agent/", False),
        ("refs/heads/agent/*", "refs/heads/agentx", False),
        ("refs/heads/agent/**", "refs/heads/agent/x/y", True),
        ("refs/heads/a.c", "refs/heads/abc", False),
        ("refs/heads/feature-*", "refs/heads/feature-1", True),
    ],
)
def test_globs(glob: str, ref: str, expected: bool) -> None:
    assert matches(glob, ref) is expected


def test_an_empty_rule_denies_by_default() -> None:
    assert judged(PushRule(), commands((ZERO, ONE, "refs/heads/x"))).refused


@pytest.mark.parametrize("step", [0, 1, 7])
def test_creating_an_allowed_ref_is_allowed(step: int) -> None:
    judge = judged(AGENT, commands((ZERO, ONE, "refs/heads/agent/x")), step=step)
    assert judge.decided
    assert not judge.refused


def test_one_refused_ref_refuses_all() -> None:
    judge = judged(AGENT, commands((ZERO, ONE, "refs/heads/agent/x"), (ZERO, ONE, "refs/heads/main")))
    assert set(judge.refused) == {"refs/heads/main"}
    text = answer(judge)
    assert b"ng refs/heads/main cloister: pushing to it is not allowed; allowed: refs/heads/agent/*" in text
    assert b"ng refs/heads/agent/x cloister: refused together" in text


def test_deleting_needs_its_own_word() -> None:
    body = commands((ONE, ZERO, "refs/heads/agent/x"))
    assert "deleting" in judged(AGENT, body).refused["refs/heads/agent/x"]
    assert not judged(PushRule(refs=AGENT.refs, delete=True), body).refused


@pytest.mark.parametrize(
    "body",
    [
        b"zzzz",
        b"0003",
        pkt(b"not a command"),
        pkt(f"{ONE} {TWO} refs/heads/x".encode()),  # no end
        pkt(b"push-cert\0 report-status\n"),
        commands((ONE, "2" * 64, "refs/heads/agent/x")),
    ],
)
def test_what_is_no_push_cannot_be_judged(body: bytes) -> None:
    with pytest.raises(UntrustedInputError):
        judged(AGENT, body)


@pytest.mark.parametrize(
    "ref", ["refs/heads/agent/../main", "refs/heads/agent/x\x7f", "HEAD", "refs/heads/agent//x"]
)
def test_names_that_are_no_refs_are_refused(ref: str) -> None:
    assert judged(PushRule(refs=("refs/heads/**", "HEAD")), commands((ZERO, ONE, ref))).refused


class Recorder:
    """Takes pushes over HTTP as a server would advertise them, judges them and answers, with `git` as the client."""

    def __init__(self, refs: dict[str, str], rule: PushRule) -> None:
        recorder = self
        self.judge: PushJudge | None = None
        self.bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lines = [f"{name} {ref}".encode() for ref, name in refs.items()] or [
                    f"{ZERO} capabilities^{{}}".encode()
                ]
                lines[0] += b"\0report-status side-band-64k delete-refs ofs-delta"
                text = (
                    pkt(b"# service=git-receive-pack\n")
                    + b"0000"
                    + b"".join(pkt(line + b"\n") for line in lines)
                    + b"0000"
                )
                if not rule.refs:
                    text = advertisement_refusal("cloister: nothing may be pushed")
                self._say(text, "advertisement")

            def do_POST(self) -> None:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                if body == b"0000":  # git asks so whether authentication works
                    self._say(b"", "result")
                    return
                recorder.bodies.append(body)
                recorder.judge = judged(rule, body, step=4096)
                self._say(answer(recorder.judge), "result")

            def _say(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", f"application/x-git-receive-pack-{kind}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/w.git"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    git("init", "-q", "-b", "main", cwd=tmp_path)
    for number in range(4):
        (tmp_path / "file").write_text("line\n" * 200 + str(number))
        git("add", "file", cwd=tmp_path)
        git("commit", "-q", "-m", f"number {number}\n\nwith the same long text in each\n" * 3, cwd=tmp_path)
    yield tmp_path


def name(work: Path, revision: str) -> str:
    return git("rev-parse", revision, cwd=work).strip()


def test_git_push_prints_why_a_ref_is_refused(work: Path) -> None:
    server = Recorder({}, AGENT)
    said = git("push", server.url, "main", cwd=work)
    server.close()
    assert "remote: cloister refuses this push" in said
    assert (
        "[remote rejected] main -> main (cloister: pushing to it is not allowed; allowed: refs/heads/agent/*)"
        in said
    )


def test_git_push_prints_why_nothing_may_be_pushed(work: Path) -> None:
    server = Recorder({}, PushRule())
    said = git("push", server.url, "main", cwd=work)
    server.close()
    assert "remote error: cloister: nothing may be pushed" in said


def test_a_fast_forward_is_told_from_a_forced_update(work: Path) -> None:
    ref = "refs/heads/agent/x"
    server = Recorder({ref: name(work, "main~2")}, AGENT)
    git("push", server.url, f"main:{ref}", cwd=work)
    server.close()
    assert server.judge is not None
    assert server.judge.refused == {}

    git("checkout", "-q", "-b", "other", "main~3", cwd=work)
    git("commit", "-q", "--allow-empty", "-m", "elsewhere", cwd=work)
    server = Recorder({ref: name(work, "main")}, AGENT)
    git("fetch", "-q", ".", cwd=work)
    said = git("push", "--force", server.url, f"other:{ref}", cwd=work)
    server.close()
    assert server.judge is not None
    assert server.judge.decided
    assert "does not follow" in said
    forced = judged(PushRule(refs=AGENT.refs, force=True), server.bodies[0])
    assert forced.refused == {}


def test_deltified_commits_link_too(work: Path) -> None:
    """Many alike commits: git stores some as differences to others."""
    for number in range(60):
        git(
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            ("the very same long message " * 40) + str(number),
            cwd=work,
        )
    ref = "refs/heads/agent/x"
    server = Recorder({ref: name(work, "main~59")}, AGENT)
    git("-c", "pack.window=50", "push", server.url, f"main:{ref}", cwd=work)
    server.close()
    assert server.judge is not None
    assert server.judge.refused == {}


def test_a_pack_that_lies_is_no_push(work: Path) -> None:
    body = (
        commands((ONE, TWO, "refs/heads/agent/x"))
        + b"PACK\0\0\0\x02\0\0\0\x01"
        + b"\x95\x0ajunk that is no zlib"
    )
    with pytest.raises(UntrustedInputError):
        judged(AGENT, body)
