"""Soak: minutes of mixed traffic through live sandboxes, while supervisors, gateways, agents and origins are killed.

    python -m tests.soak [--seconds 600] [--seed SEED] [--as root|user] [--only KIND …]

The seed is printed; the same seed and length give the same schedule (`schedule.py`). As root both identities are tried
one after the other, unless `--as` names one. The exit code is 0 if nothing was found.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys

import pytest

from tests.soak.inside.main import TRIALS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=float(os.environ.get("CLOISTER_SOAK_SECONDS", "600"))
    )
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--as", dest="identity", choices=("root", "user"), help="who runs cloister")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(TRIALS), metavar="KIND", help="trials of these kinds alone"
    )
    arguments = parser.parse_args()
    if not 5 <= arguments.seconds <= 86_400:
        parser.error(f"--seconds {arguments.seconds:g} is not between 5 and 86400: try --seconds 600")
    os.environ |= {
        "CLOISTER_SOAK_SECONDS": str(arguments.seconds),
        "CLOISTER_SOAK_SEED": arguments.seed,
        "CLOISTER_SOAK_ONLY": " ".join(arguments.only or ()),
    }
    chosen = ["-k", arguments.identity] if arguments.identity else []
    return int(pytest.main(["-q", "-s", "tests/soak/test_soak.py::test_soak", *chosen]))


if __name__ == "__main__":
    sys.exit(main())
