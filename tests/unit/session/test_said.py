"""What a supervisor has said: notices, and the words of programs between them."""

from __future__ import annotations

from pathlib import Path

from cloister.session import said


def test_notices_and_others(tmp_path: Path) -> None:
    log = tmp_path / "main.log"
    assert (said.size(str(log)), said.notices(str(log), 0), said.of_others(str(log))) == (0, [], [])
    log.write_text(said.stamped("one: two") + "bwrap: Can't chdir to /a\n")
    before = said.size(str(log))
    assert said.notices(str(log), 0) == ["one: two"]
    with log.open("a") as file:
        file.write(said.stamped("three") + "half a line")
    assert said.notices(str(log), before) == ["three"]
    assert said.of_others(str(log)) == ["bwrap: Can't chdir to /a"]
