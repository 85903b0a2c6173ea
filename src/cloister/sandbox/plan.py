"""The compiled plan: adopted configuration as plain JSON, so that a start need not validate anything.

Rule 1: a plan counts only if every file that it was compiled from still holds the same bytes, and only for the
        version of cloister that made it. Anything else is compiled anew, which validates and checks trust.
Rule 2: this module is on the hot path: it imports neither the validator nor anything that does.
"""

from __future__ import annotations

from cloister import PLAN_FORMAT, __version__
from cloister.config.directories import digest
from cloister.lean import json
from cloister.system import files

# The JSON object that docs/architecture.md describes.
Plan = dict[str, object]


def load_current(path: str, sources: set[str]) -> Plan | None:
    """The stored plan, or None if there is none that still holds. `sources`: the files that would be read now."""
    try:
        text = files.read(path)
        plan = json.loads(text) if text is not None else None
        if not isinstance(plan, dict) or (plan.get("format"), plan.get("cloister")) != (
            PLAN_FORMAT,
            __version__,
        ):
            return None
        if {source["path"] for source in plan["sources"]} != sources:
            return None
        for source in plan["sources"]:
            if files.read_text(source["path"]) != source["text"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # half written or damaged: the compiler says what is wrong with its sources, if anything
    return plan


def fingerprint(plan: Plan) -> str:
    """16 hexadecimal digits that change with what the plan says, wherever it was written down."""
    said = {key: value for key, value in plan.items() if key != "sources"}
    return digest(json.dumps(said, sort_keys=True).encode())[:16]


def store(path: str, plan: Plan) -> None:
    """Keep `plan` for the next start."""
    files.write_atomic(path, json.dumps(plan).encode())
