"""`make bench`: the figures of this machine, in one run, as ratios to what is measured beside them.

Medians of interleaved runs. A bar that is missed is printed, not an error: how fast this machine is today is
not a property of the code. Options: --runs N, --only startup,kept,network,interception,memory, --bytes N
"""

from __future__ import annotations

import argparse
import sys

import interception
import kept
import network
import startup
from report import Row, not_measured, show

from world import World, world


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure cloister beside its references.")
    parser.add_argument("--runs", type=int, default=21, help="runs of each start-up program")
    parser.add_argument("--bytes", type=int, default=1_000_000_000, help="size of downloads and uploads")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the interception figures")
    parser.add_argument("--connections", type=int, default=10_000, help="idle connections")
    parser.add_argument("--ups", type=int, default=7, help="starts of a sandbox that stays")
    parser.add_argument("--at-once", type=int, default=50, help="sandboxes that are started at once")
    parser.add_argument("--runtimes", default="embedded,docker", help="those of sandboxes that stay")
    parser.add_argument(
        "--only", default="startup,kept,network,interception,memory", help="parts, separated by commas"
    )
    arguments = parser.parse_args()
    parts = {
        "startup": lambda place: startup.rows(place, runs=arguments.runs),
        "kept": lambda place: kept.rows(
            place,
            rounds=arguments.ups,
            runs=arguments.runs,
            at_once=arguments.at_once,
            runtimes=arguments.runtimes.split(","),
        ),
        "network": lambda place: network.rows(place, download_bytes=arguments.bytes),
        "interception": lambda place: interception.rows(
            place, body_bytes=arguments.bytes, rounds=arguments.rounds
        ),
        "memory": lambda place: network.memory_rows(place, connections=arguments.connections),
    }
    rows: list[Row] = []
    failed = False
    for name in arguments.only.split(","):
        place: World
        with world() as place:
            try:
                rows += parts[name](place)
            except (RuntimeError, OSError) as error:
                rows.append(not_measured(name, str(error)))
                failed = True
    show(rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
