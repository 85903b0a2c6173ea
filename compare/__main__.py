"""python -m compare [--only srt,docker] [--probes NET-1,FS-1] [--json] [--write docs/compare.md]"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from compare import table
from compare.peers import OURS, PEERS, probes
from compare.run import compared, comparison

CANNOT = 125


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m compare", description="Attack cloister, and what could be taken instead."
    )
    parser.add_argument("--only", default=",".join(PEERS), help=f"of {', '.join(PEERS)}; separated by commas")
    parser.add_argument("--probes", default=",".join(probes()), help="ids, separated by commas")
    parser.add_argument("--json", action="store_true", help="everything, with its evidence")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    arguments = parser.parse_args()
    names, chosen = arguments.only.split(","), arguments.probes.split(",")
    for kind, given, known in (("peer", names, list(PEERS)), ("probe", chosen, list(probes()))):
        unknown = [one for one in given if one not in known]
        if unknown:
            parser.error(f"there is no {kind} {unknown[0]!r}; there are {', '.join(known)}")
    if os.geteuid() != 0:
        sys.stderr.write(
            "compare: this needs root, for network namespaces and a Docker engine of its own\n"
            "         run: sudo make compare (nothing of the machine's network or engines is touched)\n"
        )
        return CANNOT
    if arguments.write and not _has_place(arguments.write):
        parser.error(
            f"{str(arguments.write)!r} is no page with a place for the table: it needs {table.BEGIN} and {table.END}"
        )
    started = time.time()
    columns = []
    try:
        for column in compared(names, chosen):
            columns.append(column)
            sys.stderr.write(f"{table.line(column)}\n")
    except (RuntimeError, OSError) as error:
        sys.stderr.write(
            f"compare: the laboratory could not be made: {error}\n"
            "         it needs network namespaces, ip and iptables; tools/setup-tests.sh installs the programs\n"
        )
        return CANNOT
    result = comparison(columns, chosen, started)
    sys.stdout.write(f"{table.document(result) if arguments.json else table.text(result)}\n")
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(table.page(page, result), encoding="utf-8")
    return table.exit_code(result, OURS)


def _has_place(page: Path) -> bool:
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return table.BEGIN in text and table.END in text


if __name__ == "__main__":
    sys.exit(main())
