"""What is compared, by the names of peers.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from compare.judge import Described
from compare.peers import devcontainer, mitmproxy, srt
from compare.peers.cloister import Cloister
from compare.peers.docker import HARDENED, Docker
from compare.sandbox import Peer

PEERS: Mapping[str, Peer] = {
    "cloister": Cloister(runtime="embedded"),
    "cloister-docker": Cloister(runtime="docker"),
    "srt": srt,
    "devcontainer": devcontainer,
    "mitmproxy": mitmproxy,
    "docker-hardened": Docker(options=HARDENED),
    "docker": Docker(),
}
WITHOUT_ENGINE = ("cloister", "srt")
OURS = ("cloister", "cloister-docker")
FILE = Path(__file__).parents[1] / "peers.toml"


def probes() -> Sequence[str]:
    return tuple(tomllib.loads(FILE.read_text(encoding="utf-8"))["probes"])


def described() -> Mapping[str, Described]:
    return {
        name: Described(
            title=one["title"],
            what=one["what"],
            configuration=tuple(one["configuration"]),
            not_offered=dict(one.get("not_offered", {})),
            no_breach={(it["probe"], it["attack"]): it["reason"] for it in one.get("no_breach", [])},
            no_control={(it["probe"], it["control"]): it["reason"] for it in one.get("no_control", [])},
        )
        for name, one in tomllib.loads(FILE.read_text(encoding="utf-8"))["peer"].items()
    }
