from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.images.choose import detected
from cloister.images.detect import FILES, detect
from cloister.images.layer import names

CASES = tomllib.loads((Path(__file__).parents[2] / "cases/projects.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ", ".join(case["files"]) or "nothing")
def test_projects(case: dict[str, Any]) -> None:
    found = detect(case["files"])
    assert found.image == case["image"]
    assert list(found.reasons) == case.get("reasons", list(found.reasons))
    assert found.reasons, "an answer says why"


@given(st.dictionaries(st.sampled_from(FILES), st.none() | st.text(max_size=80)))
def test_any_text_has_an_image(files: dict[str, str | None]) -> None:
    assert detect(files).image in names()


def test_only_regular_files_of_the_project_are_read(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("[tools]\nnode = '22'\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "mise.toml").symlink_to("../outside")
    os.mkfifo(project / ".tool-versions")
    found = detected(str(project))
    assert found.image == "base"
    assert found.reasons == (
        "mise.toml: it cannot be read, so it counts for nothing",
        ".tool-versions: it cannot be read, so it counts for nothing",
    )
    (project / "mise.toml").unlink()
    (project / "mise.toml").write_text("[tools]\nnode = '22'\n")
    assert detected(str(project)).image == "ts", "the control"
