"""Renew the table of claims in docs/threat-model.md, made from the probes of `cloister verify`.

python tools/claims.py            rewrite the page
python tools/claims.py --print    print what it should be
"""

from __future__ import annotations

import sys
from pathlib import Path

from cloister.verify.report import claims

PAGE = Path(__file__).parents[1] / "docs" / "threat-model.md"
_BEGIN, _END = "<!-- claims -->", "<!-- /claims -->"


def page(current: str) -> str:
    """The page with its table as the probes are now."""
    before, _, rest = current.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{claims()}\n{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    made = page(PAGE.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(made)
    else:
        PAGE.write_text(made, encoding="utf-8")
