"""The main job on real input: packages from the public registries, through the gateway, with and without proxy variables."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.world import Cloister

pytestmark = [pytest.mark.sandbox, pytest.mark.registry, pytest.mark.timeout(600)]

NO_PROXY = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY;"
WAYS = pytest.mark.parametrize("way", ["", NO_PROXY], ids=["proxy", "transparent"])
NAMES = ("pypi.org", "files.pythonhosted.org", "registry.npmjs.org")


def pins(names: Iterable[str]) -> str:
    """The configuration in which these names can be reached on this network, as a user would write it."""
    lines = []
    for name in names:
        address = socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)[0][4][0]
        if not ipaddress.ip_address(str(address).partition("%")[0]).is_global:
            lines.append(f'"{name}" = "{address}"')
    return "\n".join(["[network.hosts]", *lines]) + "\n"


@pytest.fixture
def registries(user_cloister: Cloister) -> Cloister:
    """The default profile. Where this network answers a registry with a non-public address, it is pinned as a user would."""
    user_cloister.configure(pins(NAMES))
    return user_cloister


@WAYS
def test_pip_installs_a_wheel(registries: Cloister, way: str) -> None:
    script = f"{way} set -e; python3 -m venv v; v/bin/pip install -q --no-cache-dir six==1.16.0; v/bin/python -c 'import six; print(six.__version__)'"
    done = registries.sh(script, timeout_s=300)
    assert (done.code, done.out) == (0, "1.16.0\n"), done
    names = {event["host"] for event in registries.events("connect")}
    assert {"pypi.org", "files.pythonhosted.org"} <= names


@WAYS
def test_pip_installs_an_sdist(registries: Cloister, way: str) -> None:
    script = (
        f"{way} set -e; python3 -m venv v; v/bin/pip install -q --no-cache-dir --no-binary :all: --no-build-isolation setuptools==65.5.0 wheel==0.38.4 2>/dev/null"
        " || v/bin/pip install -q --no-cache-dir setuptools wheel;"
        " v/bin/pip install -q --no-cache-dir --no-build-isolation --no-binary docopt docopt==0.6.2; v/bin/python -c 'import docopt; print(docopt.__version__)'"
    )
    done = registries.sh(script, timeout_s=300)
    assert (done.code, done.out) == (0, "0.6.2\n"), done


@WAYS
def test_npm_installs_a_tree(registries: Cloister, way: str) -> None:
    if shutil.which("npm", path="/usr/local/bin:/usr/bin:/bin") is None:
        pytest.fail("npm is missing: tools/setup-tests.sh installs it")
    script = f"""{way} set -e; mkdir -p js; cd js; echo '{{"name":"x","version":"1.0.0"}}' > package.json
    npm install --silent --no-audit --no-fund chalk@4.1.2 >/dev/null; node -e 'console.log(require("chalk/package.json").version)'; ls node_modules | wc -l"""
    done = registries.sh(script, timeout_s=300)
    lines = done.out.split()
    assert done.code == 0, done
    assert lines[0] == "4.1.2"
    assert int(lines[1]) >= 5


@WAYS
def test_publishing_is_no_exit(registries: Cloister, way: str) -> None:
    """The control is in the tests above: the same names install."""
    done = registries.sh(f"{way} curl -sS --max-time 20 https://upload.pypi.org/legacy/ -d @/etc/passwd")
    assert "passwd" not in done.out
    assert done.code != 0 or "cloister" in done.out.lower(), done
    assert any(event.get("host") == "upload.pypi.org" for event in registries.events())


def test_registry_names_are_public_here_or_pinned(registries: Cloister) -> None:
    """Unpinned, a name that this network answers with a private address is refused with the reason (NAME-5)."""
    if not (Path(os.fspath(registries.home)) / ".config/cloister/config.toml").read_text().count("="):
        pytest.skip(
            "this network answers registry names with public addresses; test_network covers the refusal"
        )
    registries.configure("")
    done = registries.sh("curl -sS --max-time 20 https://pypi.org/simple/six/")
    assert done.code != 0 or "cloister" in done.out
    reasons = " ".join(str(event.get("reason")) for event in registries.events("refuse"))
    assert "address" in reasons, registries.events()
