"""Every probe finds its weakened sandbox; and a sandbox that is not weakened holds."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cloister import cli
from cloister.verify import program
from cloister.verify.outside import main as outside
from cloister.verify.probes import BY_ID, HOST, INSIDE, PROBES
from cloister.verify.run import Options, Report, verify
from cloister.verify.verdict import Outcome, Result, exit_code
from cloister.verify.witnesses import Witnesses
from tests.verify import gateway_mutations, http_mutations  # noqa: F401 - they add to MUTATIONS
from tests.verify.mutations import MUTATIONS

# Mutation → probe → the ways that must be found open, each: an attack that cannot succeed shows nothing.
WAYS: dict[str, dict[str, list[str]]] = tomllib.loads(
    (Path(__file__).parents[1] / "cases/verify_ways.toml").read_text()
)
# Probe, each of whose ways must be open in one of its weakened sandboxes → way of which only the origin can tell → mark.
EACH: dict[str, dict[str, str]] = tomllib.loads(
    (Path(__file__).parents[1] / "cases/verify_each_way.toml").read_text()
)
pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(240)]


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """A home of its own, with a project in which the test stands."""
    home = Path(tempfile.mkdtemp(prefix="cloister-verify-test-", dir="/var/tmp"))
    project = home / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    found = {"HOME": str(home), "USER": "someone", "PATH": "/usr/bin:/bin"}
    monkeypatch.setenv("HOME", found["HOME"])
    yield found
    shutil.rmtree(home)


def command(arguments: Sequence[str]) -> int:
    """cloister's own, weakened as this process is."""
    return cli.flush(cli.dispatch(list(arguments)))


def attacked(environ: Mapping[str, str], *ids: str) -> Report:
    return verify(Options(command=command, only=ids), environ, lambda _pass, _probe: None)


def test_every_probe_has_an_attack_and_a_mutation_and_every_mutation_a_probe() -> None:
    assert {name for probe in PROBES for name in probe.mutations} == set(MUTATIONS)
    inside = re.findall(r'^@probe\("(.+)"\)', program.text(), re.MULTILINE)
    assert sorted([*inside, "K-7"]) == sorted(probe.id for probe in PROBES if INSIDE in probe.sides)
    assert sorted(outside.PROBES) == sorted(probe.id for probe in PROBES if HOST in probe.sides)
    assert len(BY_ID) == len(PROBES)


def test_a_sandbox_holds(environ: Mapping[str, str]) -> None:
    report = attacked(environ)
    assert {one.probe.id: one.reason for one in report.results if one.outcome is not Outcome.HELD} == {}
    assert len(report.results) == len(PROBES)
    assert exit_code(report.results) == 0
    left = [name for name in os.listdir(environ["HOME"]) if name.startswith("cloister-verify-")]
    assert left == []


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_weakened_sandbox_is_breached(
    name: str, environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ids = [probe.id for probe in PROBES if name in probe.mutations]
    MUTATIONS[name](monkeypatch, tmp_path)
    report = attacked(environ, *ids)
    missed = {
        one.probe.id: (one.outcome.value, one.evidence)
        for one in report.results
        if one.outcome is not Outcome.BREACHED
    }
    assert missed == {}
    assert exit_code(report.results) == 1
    found = {one.probe.id: breaches(one) for one in report.results}
    assert {
        (probe, way) for probe, ways in WAYS.get(name, {}).items() for way in ways if way not in found[probe]
    } == set()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bytes]:
    """What has arrived outside."""
    made: list[Witnesses] = []
    original = Witnesses.__init__

    def kept(self: Witnesses, **arguments: Any) -> None:
        original(self, **arguments)
        made.append(self)

    monkeypatch.setattr(Witnesses, "__init__", kept)
    return lambda: b"\n".join(one.seen for one in made)


@pytest.mark.parametrize("name", EACH)
def test_each_way_of_a_probe_is_open_in_a_weakened_sandbox(
    name: str, environ: Mapping[str, str], seen: Callable[[], bytes], tmp_path: Path
) -> None:
    """What no weakened sandbox lets pass may be tried in a way that cannot succeed."""
    tried: set[str] = set()
    opened: set[str] = set()
    for mutation in BY_ID[name].mutations:
        with pytest.MonkeyPatch.context() as patch:
            MUTATIONS[mutation](patch, tmp_path)
            [result] = attacked(environ, name).results
        told = [
            re.fullmatch(r"first: attack (['\"])(.+?)\1: (succeeded|refused) .*", one)
            for one in result.evidence
        ]
        tried |= {one[2] for one in told if one}
        opened |= {one[2] for one in told if one and one[3] == "succeeded"}
    outside = EACH[name]
    assert set(outside) <= tried
    opened |= {
        way for way, mark in outside.items() if re.search(re.escape(mark).encode() + rb"(?![a-z])", seen())
    }
    assert len(tried) > 10
    assert tried - opened == set()


def breaches(result: Result) -> str:
    """The names of the attacks that succeeded, and what was seen outside."""
    held = ("attack ", "control ")
    lines = (one.partition(": ")[2] for one in result.evidence)
    return "\n".join(line for line in lines if not line.startswith(held))


def test_probes_send_their_marks() -> None:
    """What the witnesses look for is what the program sends, so an attack that arrives is known by its probe."""
    sent = set(re.findall(r"attack-([A-Z]+-\d+)", program.text()))
    assert sent <= set(BY_ID)
