"""What a comparison shows: a terminal's table, JSON, the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compare import table
from compare.judge import Cell, Finding
from compare.peers import OURS, PEERS, described, probes
from compare.run import Column, Comparison

ROOT = Path(__file__).parents[3]


def column(name: str, **cells: Cell) -> Column:
    return Column(name=name, version="1", cells={key.replace("_", "-"): one for key, one in cells.items()})


def found(finding: Finding, reason: str = "", notes: tuple[str, ...] = ()) -> Cell:
    return Cell(finding=finding, reason=reason, notes=notes)


RESULT = Comparison(
    probes=("NET-1", "FS-1"),
    columns=(
        column("cloister", NET_1=found(Finding.HELD, "3 attacks"), FS_1=found(Finding.HELD, "17 attacks")),
        column(
            "docker",
            NET_1=Cell(
                finding=Finding.BREACHED,
                reason="first: a | name_: 200",
                evidence=("seen outside: attack-NET-1",),
                passed=1,
                tried=3,
            ),
            FS_1=found(Finding.NOT_OFFERED, "it has none", notes=("FS-1: a note",)),
        ),
    ),
    kernel="6.1",
    machine="x86_64",
    started=0.0,
)


def test_a_terminal_shows_every_probe_and_peer() -> None:
    assert table.text(RESULT).splitlines() == [
        "probe  cloister  docker run",
        "NET-1  held      breached",
        "FS-1   held      not offered",
    ]


def test_json_has_the_evidence() -> None:
    read = json.loads(table.document(RESULT))
    assert read["time"] == "1970-01-01T00:00:00Z"
    assert read["peers"][1]["probes"]["NET-1"] == {
        "finding": "breached",
        "reason": "first: a | name_: 200",
        "passed": 1,
        "tried": 3,
        "evidence": ["seen outside: attack-NET-1"],
        "notes": [],
    }


def test_the_page_keeps_what_is_written_by_hand() -> None:
    page = table.page("before\n<!-- compare -->\nold\n<!-- /compare -->\nafter\n", RESULT)
    assert page.startswith("before\n<!-- compare -->\nMade 1970-01-01")
    assert page.endswith("<!-- /compare -->\nafter\n")
    assert "old" not in page
    rows = [line for line in page.splitlines() if line.startswith("| NET-1 ")]
    assert [row.endswith("| held | **breached** |") for row in rows] == [True]
    assert "- *breached* NET-1: 1 of 3 attacks, first: a \\| name\\_: 200" in page
    assert "- *not offered* FS-1: it has none" in page
    assert "- *judged* FS-1: a note" in page
    assert "| | *breached* | 0 | 1 |" in page


def test_only_a_breach_of_our_own_fails() -> None:
    assert table.exit_code(RESULT, OURS) == 0
    assert table.exit_code(RESULT, ("docker",)) == 1
    assert table.exit_code(RESULT, ()) == 0


def test_a_peer_that_was_not_run_says_why() -> None:
    missing = Column(
        name="srt",
        version="",
        cells={"NET-1": found(Finding.NOT_RUN, "npm is not installed")},
        trouble="npm is not installed",
    )
    assert table.line(missing) == "srt: not run: npm is not installed"
    page = table.markdown(
        Comparison(probes=("NET-1",), columns=(missing,), kernel="6.1", machine="x86_64", started=0.0)
    )
    assert "Not run: npm is not installed" in page
    assert "| ? |" in page


def test_the_data_name_probes_peers_and_files_that_there_are() -> None:
    from cloister.verify.probes import BY_ID

    about = described()
    assert set(about) == set(PEERS)
    assert set(OURS) <= set(PEERS)
    assert set(probes()) <= set(BY_ID)
    for one in about.values():
        named = {*one.not_offered, *(probe for probe, _ in (*one.no_breach, *one.no_control))}
        assert named <= set(probes())
        assert all((ROOT / "compare/configuration" / file).resolve().exists() for file in one.configuration)
        reasons = (*one.not_offered.values(), *one.no_control.values(), *one.no_breach.values())
        assert all(len(reason) > 10 for reason in reasons)


def test_nothing_is_excused_in_our_own_columns() -> None:
    """What cloister is measured by, it is measured by in full."""
    for name in OURS:
        assert not described()[name].not_offered
        assert not described()[name].no_breach
        assert not described()[name].no_control


def test_attacks_that_are_excused_are_attacks_of_the_program() -> None:
    from cloister.verify import program

    text = program.text()
    for one in described().values():
        for _, control in one.no_control:
            assert control in text
        for probe, attack in one.no_breach:
            words = attack.replace("CapBnd", "{field}")
            assert words in text or attack.removeprefix("read ") in text, (probe, attack)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "dokcer"], "there is no peer 'dokcer'"),
        (["--probes", "NET-99"], "there is no probe 'NET-99'"),
        (["--write", "/nowhere/page.md"], "'/nowhere/page.md' is no page with a place for the table"),
        (["--write", "/etc/hostname"], "needs <!-- compare --> and"),
    ],
)
def test_an_unknown_name_is_said_before_anything_is_made(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from compare import __main__ as command

    monkeypatch.setattr("sys.argv", ["compare", *arguments])
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_without_root_it_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from compare import __main__ as command

    monkeypatch.setattr("sys.argv", ["compare"])
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert command.main() == command.CANNOT
    assert "sudo make compare" in capsys.readouterr().err
