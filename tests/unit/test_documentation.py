"""The documentation names files, tests and decisions: they must exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_TESTS = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_decisions_that_the_code_refers_to_exist() -> None:
    sources = [path.read_text(encoding="utf-8") for path in ROOT.glob("src/**/*.py")]
    named = set(re.findall(r"docs/[\w./-]+\.md", "\n".join(sources)))
    assert named
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_test_in_the_table_of_attacks_exists() -> None:
    files = set(re.findall(r"`(test_\w+\.py)`", ARCHITECTURE))
    functions = set(re.findall(r"`(test_\w+)`", ARCHITECTURE))
    assert len(functions) > 50
    assert sorted(name for name in files if not list(ROOT.glob(f"tests/**/{name}"))) == []
    assert sorted(name for name in functions if f"def {name}(" not in _TESTS) == []


def test_every_module_that_architecture_names_exists() -> None:
    named = set(re.findall(r"`(\w+/\w+\.py)`", ARCHITECTURE))
    assert len(named) > 30
    assert sorted(name for name in named if not (ROOT / "src" / "cloister" / name).exists()) == []


def test_the_reference_is_what_the_model_says() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tools" / "reference.py"], capture_output=True, text=True, check=True
    ).stdout
    assert made == (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")


def test_the_claims_of_the_threat_model_are_the_probes() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tools" / "claims.py", "--print"], capture_output=True, text=True, check=True
    ).stdout
    assert made == (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
