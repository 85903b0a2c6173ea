"""Claude Code, as npm installs it, works in a sandbox with an API key that is nowhere in the sandbox."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import DEADLINE_S, Cloister
from tests.fakes import agent_watch
from tests.fakes.anthropic_origin import FIRST, NAME, SECOND, AnthropicOrigin
from tests.fakes.origins import Authority

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]

KEY = "sk-ant-api03-R3alKeyOfTheTest-0123456789abcdefghijklmnopqrstuvwxyz-AA"
WAYS = pytest.mark.parametrize("way", ["proxy", "transparent"])
PROXY_VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture
def anthropic(authority: Authority) -> Iterator[AnthropicOrigin]:
    with AnthropicOrigin(authority, KEY) as running:
        yield running


@pytest.fixture
def agent(
    cloister: Cloister, anthropic: AnthropicOrigin, authority: Authority, claude_code: Path
) -> Cloister:
    """A project in which Claude Code can start; nothing is reachable but the local stand-in."""
    ca = cloister.write(cloister.home / "ca.pem", authority.pem)
    shutil.copy(agent_watch.__file__, cloister.write(cloister.project / "agent_watch.py", ""))
    cloister.configure(
        f"""
[sandbox]
profile = "agent"
read_only = ["{claude_code.parents[1]}"]

[network]
upstream_ca = ["{ca}"]

[network.hosts]
"{NAME}" = "127.0.0.1:{anthropic.port}"

[[credential]]
name = "anthropic"
source = "env:REAL_ANTHROPIC_KEY"
preset = "anthropic"
"""
    )
    cloister.extra_environment["REAL_ANTHROPIC_KEY"] = KEY
    return cloister


@WAYS
def test_claude_code_answers_and_the_key_is_nowhere_in_the_sandbox(
    agent: Cloister, anthropic: AnthropicOrigin, claude_code: Path, way: str
) -> None:
    """The origin stops in the middle of its answer until the first half has come out and the sandbox is searched."""
    unset = [part for name in PROXY_VARIABLES for part in ("-u", name)] if way == "transparent" else []
    command = ["/usr/bin/env", *unset, str(claude_code), "-p", "Does it hold?"]
    command += ["--verbose", "--output-format", "stream-json", "--include-partial-messages"]
    process = agent.start(
        "run", "--", "/usr/bin/python3", "agent_watch.py", KEY[::-1], "ANTHROPIC_API_KEY", *command
    )
    killer = threading.Timer(DEADLINE_S, process.kill)
    killer.start()
    try:
        said = _until_the_end(process, anthropic)
        code = process.wait(DEADLINE_S)
        errors = process.stderr.read() if process.stderr else ""
    finally:
        killer.cancel()
    assert code == 0, (errors, said, agent.events())
    (watched,) = (line["watch"] for line in said if "watch" in line)
    assert watched["placeholder"], "the control: what is in the sandbox is found"
    assert any(place.startswith("claude") for place in watched["placeholder"]), watched
    assert watched["memory_bytes"] > 50 << 20
    assert watched["unreadable"] == [], watched
    assert watched["key"] == []
    (result,) = (line for line in said if line.get("type") == "result")
    assert result["result"] == FIRST + SECOND
    assert KEY not in json.dumps(said) + errors
    request = anthropic.streamed[0]
    assert (request.headers["x-api-key"], request.host) == (KEY, NAME)
    assert KEY not in request.body.decode()
    assert "authorization" not in request.headers
    sent = [event for event in agent.events("request") if event.get("path") == "/v1/messages"]
    assert [event["status"] for event in sent][-1] == 200
    assert KEY not in json.dumps(agent.events())
    _no_file_holds(agent, KEY.encode())


def test_the_search_finds_a_key_that_is_there(agent: Cloister) -> None:
    """The weakened sandbox: the key in its environment and in a file. The stand-in for an agent waits in its output."""
    script = 'echo "$LEAK" > /tmp/leak; echo text_delta; yes | head -n 200000'
    command = ("/usr/bin/env", f"LEAK={KEY}", "/bin/sh", "-c", script)
    done = agent.run("/usr/bin/python3", "agent_watch.py", KEY[::-1], "ANTHROPIC_API_KEY", *command)
    assert done.code == 0, done.err
    watched = json.loads(done.out.splitlines()[1])["watch"]
    assert "sh environ" in watched["key"]
    assert "/tmp/leak" in watched["key"]
    assert watched["unreadable"] == []


def _until_the_end(process: subprocess.Popen[str], anthropic: AnthropicOrigin) -> list[dict[str, Any]]:
    """All lines of the agent, which are JSON; lets the origin go on when the search has been done."""
    said: list[dict[str, Any]] = []
    for line in process.stdout or ():
        said.append(json.loads(line))
        if "watch" in said[-1]:
            assert SECOND not in json.dumps(said), "the first half came before there was a second"
            assert FIRST in json.dumps(said)
            anthropic.go_on.set()
    return said


def _no_file_holds(agent: Cloister, key: bytes) -> None:
    read = 0
    for path in agent.base.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            read += 1
            assert key not in data, path
    assert read > 3
