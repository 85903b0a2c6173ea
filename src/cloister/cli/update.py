"""`cloister update`: the newest image for a container sandbox, and the sandbox anew of it. Home and volumes stay."""

from __future__ import annotations

import argparse
import os

from cloister.cli import options
from cloister.cli.image_progress import Display
from cloister.cli.run import tell
from cloister.errors import UsageError
from cloister.images import build, choose, engine
from cloister.images.build_argv import LABEL_BASE
from cloister.images.layer import load_layers, names
from cloister.images.render import DEFAULT_BASE, tag
from cloister.sandbox import catalogue
from cloister.session import prepare, up

_PULL_S = 1800.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `update`."""
    parser.epilog = (
        "An image of cloister's own is built anew, with the newest packages; another one is pulled. "
        "The embedded runtime has no image: its tools are those of this machine."
    )
    options.add_name(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Renew the image, then the sandbox if it runs."""
    which = options.Which.of(arguments)
    project = which.project()
    kept = catalogue.load(project, which.name)
    if kept is None:
        raise options.not_running(project, which.name)
    plan = prepare.current_plan(project, os.environ, up.stored_overrides(kept))
    runtime, image = prepare.runtime(plan), prepare.image(plan)
    if runtime == prepare.EMBEDDED:
        print(f"{which.name} ({project.workspace}): nothing to update: its tools are those of this machine")
        return 0
    _renew(runtime, image, project.workspace)
    if catalogue.live(project, which.name) is None:
        print(f"{which.name} ({project.workspace}): its image is up to date; it does not run")
        return 0
    renewed = up.up(up.UpOptions(name=which.name, directory=project.workspace), os.environ, tell)
    said = "started anew" if renewed.how == "recreated" else "its image was up to date"
    print(f"{which.name} ({project.workspace}): {said}")
    return 0


def _renew(runtime: str, image: str, workspace: str) -> None:
    found = engine.find(runtime, os.environ, untrusted=[workspace])
    if image and image not in names():
        done = found.ask("pull", image, timeout_s=_PULL_S)
        if done.code:
            raise UsageError(
                f"{found.name} could not pull {image!r}",
                details=done.errors.decode(errors="replace").strip()[-500:],
                resolution="an image that was made here has no newer one: build it again, then: cloister rebuild",
            )
        return
    name = image or choose.detected(workspace).image
    base = engine.image_label(found, tag(name), LABEL_BASE) or DEFAULT_BASE
    wish = build.checked(build.Wish(name=name, base=base, no_cache=True))
    titles = {name: layer.title for name, layer in load_layers().items()}
    with Display(titles) as display:
        build.build(found, wish, display.hear)
