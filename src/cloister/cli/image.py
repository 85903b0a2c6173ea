"""`cloister image build|list|detect`: the container images for sandboxes, one per language on a common base.

Rule 1: the reference of what was built goes to standard output, alone; the progress to standard error.
"""

from __future__ import annotations

import argparse
import json
import os

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cloister.audit.table import printable
from cloister.cli.image_progress import Display
from cloister.images import build, choose, engine
from cloister.images.layer import load_layers
from cloister.images.render import DEFAULT_BASE, tag

PIPE_WIDTH_CHARACTERS = 160


def configure(parser: argparse.ArgumentParser) -> None:
    parser.description = "Build and list the container images that sandboxes are started from."
    commands = parser.add_subparsers(dest="image_command", metavar="COMMAND", required=True)
    making = commands.add_parser("build", help="build an image, from Debian's packages")
    making.add_argument(
        "image", metavar="NAME", nargs="?", help="base, ts, python … (default: the project's language)"
    )
    making.add_argument(
        "--base",
        metavar="IMAGE",
        default=DEFAULT_BASE,
        help=f"a Debian or Ubuntu: an image, or a root file system's directory or tar (default: {DEFAULT_BASE})",
    )
    making.add_argument("--platform", metavar="OS/ARCH", default="", help="linux/amd64 or linux/arm64")
    making.add_argument("--no-cache", action="store_true", help="build all of it again")
    making.add_argument(
        "--apt-mirror",
        metavar="URL",
        default="",
        help="install from this mirror; the image keeps its own sources",
    )
    making.add_argument(
        "--network",
        metavar="MODE",
        default="",
        help='"host": the build has the network of the engine\'s host',
    )
    listing = commands.add_parser("list", help="the images that there are, and which have been built")
    finding = commands.add_parser("detect", help="say which image suits the project around you, and why")
    for one in (making, listing):
        one.add_argument(
            "--runtime", metavar="NAME", help="docker or podman (default: the one that there is)"
        )
    for one in (listing, finding):
        one.add_argument("--json", action="store_true", help="one JSON object, for programs")


def execute(arguments: argparse.Namespace) -> int:
    chosen = {"build": _build, "list": _list, "detect": _detect}
    return chosen[arguments.image_command](arguments)


def _build(arguments: argparse.Namespace) -> int:
    wish = build.checked(
        build.Wish(
            name=arguments.image or choose.detected(os.getcwd()).image,
            base=arguments.base,
            platform=arguments.platform,
            network=arguments.network,
            apt_mirror=arguments.apt_mirror,
            no_cache=arguments.no_cache,
        )
    )
    found = engine.find(arguments.runtime, os.environ)
    titles = {name: layer.title for name, layer in load_layers().items()}
    with Display(titles) as display:
        built = build.build(found, wish, display.hear)
    Console(stderr=True, highlight=False).print(
        f"{'built' if built.fresh else 'already built'}: {built.alias}", markup=False
    )
    print(built.reference)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    found = engine.find(arguments.runtime, os.environ)
    rows = [
        {
            "name": name,
            "title": layer.title,
            "reference": tag(name),
            "built": engine.image_id(found, tag(name)) is not None,
        }
        for name, layer in load_layers().items()
    ]
    if arguments.json:
        print(json.dumps({"engine": found.name, "images": rows}, indent=2))
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("image", "built", "what is in it"):
        table.add_column(column, no_wrap=column != "what is in it")
    for row in rows:
        state = Text("yes", style="green") if row["built"] else Text("no")
        table.add_row(Text(str(row["name"])), state, Text(str(row["title"])))
    _console().print(table)
    return 0


def _detect(arguments: argparse.Namespace) -> int:
    found = choose.detected(os.getcwd())
    if arguments.json:
        print(json.dumps({"image": found.image, "reasons": list(found.reasons)}, indent=2))
        return 0
    console = _console()
    console.print(found.image, style="bold", markup=False)
    for reason in found.reasons:
        console.print(f"  {printable(reason)}", markup=False)
    return 0


def _console() -> Console:
    terminal = os.isatty(1)
    return Console(highlight=False, width=None if terminal else PIPE_WIDTH_CHARACTERS)
