"""Say that they begin, run the probes that the host wants, tell of each, and wait to be let go."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping

from cloister.verify.inside.talk import CONFIG, PROBES, LiveProbe, Probe

_ALARM_S = 150  # far above what they take; a loaded machine is no failed probe


def main() -> None:
    signal.alarm(CONFIG.get("alarm_s", _ALARM_S))
    say({"begun": True})
    wanted = CONFIG["only"]
    for name, function in PROBES.items():
        if name not in wanted:
            continue
        found = LiveProbe() if name in CONFIG.get("by_gateway", ()) else Probe()
        try:
            function(found)
        except Exception as error:
            found.controls.append(
                {"what": "the probe ran", "succeeded": False, "got": f"{type(error).__name__}: {error}"[:400]}
            )
        line = {
            "id": name,
            "attacks": found.attacks,
            "controls": found.controls,
            "notes": found.notes,
            "missing": found.missing,
        }
        say(line)
    signal.alarm(0)
    say({"done": True})
    sys.stdin.buffer.read()  # the host looks at this process meanwhile; the end lets it go


def say(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if CONFIG:
    main()
