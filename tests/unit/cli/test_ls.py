"""What `cloister ls` prints of what was found."""

from __future__ import annotations

import argparse
import json

import pytest

from cloister.cli import ls
from cloister.session import survey
from cloister.session.survey import Port, Seen

RUNNING = Seen(
    name="main", sandbox_id="p-1", workspace="/w", runtime="docker", profile="agent", running=True,
    uptime_s=7300.0, memory_bytes=3 << 20, processes=4, refusals=2,
)  # fmt: skip
STOPPED = Seen(name="old", sandbox_id="", workspace="/w", runtime="embedded", profile="full", running=False)


def shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: list[Seen], *words: str
) -> str:
    monkeypatch.setattr(survey, "survey", lambda state, workspace: found)
    parser = argparse.ArgumentParser()
    ls.configure(parser)
    assert ls.execute(parser.parse_args(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (Port(host=3000, sandbox=3000, up=True), "3000 (up)"),
        (Port(host=8080, sandbox=3000, up=False), "8080→3000 (down)"),
        (Port(host=8080, sandbox=8080, up=None), "8080"),
    ],
)
def test_a_published_port(port: Port, text: str) -> None:
    assert ls.port(port) == text


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(monkeypatch, capsys, [RUNNING, STOPPED])
    assert [line.split() for line in out.splitlines()] == [
        ["name", "workspace", "runtime", "profile", "state", "up", "processes", "memory", "refused"],
        ["main", "/w", "docker", "agent", "running", "2", "h", "1", "min", "4", "3.1", "MB", "2"],
        ["old", "/w", "embedded", "full", "stopped"],
    ]


def test_published_ports_have_a_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = (Port(host=3000, sandbox=3000, up=True), Port(host=8080, sandbox=5173, up=False))
    seen = Seen(
        name="main",
        sandbox_id="p-1",
        workspace="/w",
        runtime="docker",
        profile="agent",
        running=True,
        ports=ports,
    )
    lines = [line.rstrip() for line in shown(monkeypatch, capsys, [seen, STOPPED]).splitlines()]
    assert lines[0].endswith("ports")
    assert lines[1].endswith("3000 (up), 8080→5173 (down)")


def test_json_tells_the_ports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = Seen(
        name="main", sandbox_id="p-1", workspace="/w", runtime="docker", profile="agent", running=True,
        ports=(Port(host=8080, sandbox=5173, up=False),),
    )  # fmt: skip
    (found,) = json.loads(shown(monkeypatch, capsys, [seen], "--json"))
    assert found["ports"] == [{"host": 8080, "sandbox": 5173, "up": False}]
