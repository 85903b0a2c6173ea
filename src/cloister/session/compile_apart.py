"""Compile the configuration in a process of its own: the validator's 30 MB end with it.

The session lives as long as its sandbox, and would hold them for nothing.
"""

from __future__ import annotations

import json
import os

from cloister import errors
from cloister.errors import CloisterError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloister.config.compile import Overrides
    from cloister.sandbox.plan import Plan


def compile_apart(workspace: str, environ: Mapping[str, str], overrides: Overrides | None) -> Plan:
    """As `config.compile.compile_project`, errors included."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with open(writing, "w", encoding="ascii") as pipe:
                json.dump(_compile(workspace, environ, overrides), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    if not text:
        raise CloisterError(
            "the configuration's compiler died", resolution="try again; if it stays, report it"
        )
    answer = json.loads(text)
    if "error" in answer:
        raise _error(**answer["error"])
    plan: Plan = answer["plan"]
    return plan


def _compile(workspace: str, environ: Mapping[str, str], overrides: Overrides | None) -> dict[str, object]:
    from cloister.config.compile import Overrides, compile_project

    try:
        return {"plan": compile_project(workspace, environ, overrides or Overrides())}
    except CloisterError as error:
        words = {"brief": error.brief, "details": error.details, "resolution": error.resolution}
        return {"error": {"kind": type(error).__name__, **words}}
    except Exception as error:
        brief = f"the configuration could not be compiled: {type(error).__name__}: {error}"
        return {
            "error": {
                "kind": "CloisterError",
                "brief": brief,
                "resolution": "this is a bug of cloister: please report it",
            }
        }


def _error(kind: str, brief: str, details: str = "", resolution: str = "") -> CloisterError:
    cls: type[CloisterError] = getattr(errors, kind)
    return cls(brief, details=details, resolution=resolution)
