"""A sandbox with a credential, and origins that it is for: what the tests of real clients share.

Every origin is local and has its public-looking name by a pin.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.origins import Authority
from tests.fakes.web_origin import WebOrigin

if TYPE_CHECKING:  # conftest imports this module
    from tests.world import Cloister, Result

TOKEN = "sesame/open+R3al0123456789abcdef"
API = "api.example.test"
UNSET = "unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY;"
WAYS = pytest.mark.parametrize("way", ["", UNSET], ids=["proxy", "transparent"])
BEARER = f"""
[[credential]]
name = "api"
source = "env:REAL_TOKEN"
hosts = ["{API}"]
inject = "bearer"
env = "API_TOKEN"
"""
MASKED = "*" * len(TOKEN)
PROTOCOLS = pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
Configure = Callable[..., "Cloister"]
Open = Callable[..., WebOrigin]


@pytest.fixture
def configure(cloister: Cloister, authority: Authority) -> Configure:
    """Write a configuration with credentials and pins: names to ports of this machine."""

    def write(
        pins: Mapping[str, int], credentials: str = BEARER, *, read_only: tuple[Path, ...] = ()
    ) -> Cloister:
        ca = cloister.write(cloister.home / "ca.pem", authority.pem)
        hosts = "\n".join(f'"{name}" = "127.0.0.1:{port}"' for name, port in pins.items())
        cloister.configure(
            f"""
[sandbox]
read_only = {json.dumps([str(path) for path in read_only])}

[network]
upstream_ca = ["{ca}"]

[network.hosts]
{hosts}
{credentials}"""
        )
        cloister.extra_environment["REAL_TOKEN"] = TOKEN
        return cloister

    return write


@pytest.fixture
def web(authority: Authority) -> Iterator[Open]:
    """Opens origins; the test's end closes them."""
    with ExitStack() as stack:
        yield lambda *names, **how: stack.enter_context(WebOrigin(authority, *names, **how))


def trace(cloister: Cloister, done: Result, *values: str) -> None:
    """No real value is in the output, the audit log, or any file of the sandbox."""
    for value in values or (TOKEN,):
        for form in (value, base64.b64encode(value.encode()).decode().rstrip("=")):
            assert form not in done.out + done.err
            for path in cloister.base.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    assert form.encode() not in path.read_bytes(), path
