"""A stand-in for `docker` and `podman`: keeps images as files, notes what it was told, and fails as it is told to.

Its directory is its own (`images/`, `calls`, `fail-…`); a test writes and reads there.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

HERE = Path(sys.argv[0]).resolve().parent


def main() -> int:
    arguments = sys.argv[1:]
    with (HERE / "calls").open("a") as log:
        log.write(json.dumps({"argv": arguments, "environment": dict(os.environ)}) + "\n")
    for length in (2, 1):
        fault = HERE / ("fail-" + "-".join(arguments[:length]))
        if fault.exists():
            sys.stderr.write(fault.read_text())
            return 1
    match arguments[:2]:
        case ["version", _]:
            print("20.10.24 linux/amd64")
        case ["info", _] if arguments[2] == "{{json .}}":
            print(
                json.dumps(
                    {"KernelVersion": os.uname().release, "ServerVersion": "20.10.24", "MemoryLimit": True}
                )
            )
        case ["info", _]:
            print("4.3.1 linux/amd64")
        case ["buildx", _]:
            return 1
        case ["image", "inspect"]:
            return inspect(arguments[3], arguments[-1])
        case ["pull", *_]:
            print("pulling")
            platform = arguments[2] if arguments[1] == "--platform" else "linux/amd64"
            keep(
                arguments[-1],
                "sha256:pulled",
                platform=platform,
                digests=["docker.io/library/debian@sha256:d1"],
            )
        case ["import", archive]:
            shutil.copy(archive, HERE / "imported.tar")
            keep(arguments[2], "sha256:imported")
        case ["tag", source]:
            shutil.copy(path_of(source), path_of(arguments[2]))
        case ["build", *_]:
            return build(arguments)
    return 0


def path_of(reference: str) -> Path:
    return HERE / "images" / reference.replace("/", "_")


def keep(
    reference: str,
    identity: str,
    *,
    digests: list[str] | None = None,
    labels: dict[str, str] | None = None,
    platform: str = "linux/amd64",
) -> None:
    path_of(reference).parent.mkdir(exist_ok=True)
    known = {"Id": identity, "RepoDigests": digests or [], "Labels": labels or {}, "Platform": platform}
    path_of(reference).write_text(json.dumps(known))


def inspect(template: str, reference: str) -> int:
    if not path_of(reference).exists():
        sys.stderr.write(f"Error: No such image: {reference}\n")
        return 1
    found = json.loads(path_of(reference).read_text())
    if "Architecture" in template:
        print(found.get("Platform", "linux/amd64"))
    elif "Labels" in template:
        print(found.get("Labels", {}).get(template.split('"')[1], ""))
    else:
        print(json.dumps(found["RepoDigests"]) if "RepoDigests" in template else found["Id"])
    return 0


def build(arguments: list[str]) -> int:
    context = Path(arguments[-1])
    shutil.rmtree(HERE / "context", ignore_errors=True)
    shutil.copytree(context, HERE / "context")
    print("#5 [base 2/2] RUN set -eu", flush=True)
    print("#5 0.1 Setting up things", flush=True)
    if (HERE / "full").exists():
        print("#5 0.2 E: No space left on device\n#5 ERROR: exit code: 100", flush=True)
        return 1
    pairs = list(itertools.pairwise(arguments))
    labels = dict(value.split("=", 1) for flag, value in pairs if flag == "--label")
    for flag, value in pairs:
        if flag == "--tag":
            keep(value, "sha256:built", labels=labels)
    return 0


if __name__ == "__main__":
    sys.exit(main())
