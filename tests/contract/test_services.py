"""Services beside a sandbox in a container: reached by name and port through the gateway, and nothing else of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.conftest import World
from tests.contract.test_network import talk
from tests.engines import IMAGE

SERVICE = (
    "use IO::Socket; $|=1; $SIG{TERM}=sub{exit}; "
    "for $p (5432,5433) {next if fork; $s=IO::Socket::INET->new(LocalPort=>$p,Listen=>5,ReuseAddr=>1); "
    "while($c=$s->accept){print $c qq($ENV{GREETING} $p\\n); close $c}} sleep 1 while 1"
)


@pytest.fixture
def served(world: World) -> Iterator[World]:
    """A world whose configuration declares a service, which is not started yet."""
    if world.engine is None:
        pytest.skip("the embedded runtime's services: tests/e2e/test_services.py")
    if world.engine.rootless:
        pytest.skip("rootless Podman needs a tun device for a network, which test machines lack")
    path = world.cloister.home / ".config/cloister/config.toml"
    # A network of CNI's without a way out has no address on this machine either (services/place.py).
    cni = world.runtime == "podman" and world.engine("info", "--format={{.Host.NetworkBackend}}") == "cni"
    world.cloister.configure(
        f"""{path.read_text()}
[services.echo]
image = "{IMAGE}"
port = 5432
env = {{ GREETING = "hello" }}
{"unsafe_egress = true" if cni else ""}
command = ["perl", "-e", '''{SERVICE}''']
"""
    )
    yield world
    world.cloister("services", "rm", "--volumes")


def services(world: World) -> list[str]:
    assert world.engine is not None
    shown = world.engine("ps", "--format={{.Names}}", "--filter=label=dev.cloister.service")
    return shown.split()


def test_a_service_is_reached_by_name_and_port_and_ends_with_its_last_user(served: World) -> None:
    done = served.cloister("up", timeout_s=120)
    assert done.code == 0, done
    assert talk(served, "echo", 5432) == "hello 5432\n"
    assert talk(served, "echo", 5433).startswith("no: "), "its other ports are not declared"
    assert len(services(served)) == 1
    assert served.cloister("stop").code == 0
    assert services(served) == []


def test_its_address_leads_nowhere(served: World) -> None:
    """NET-7: what else is on the engine's network, the engine's host included."""
    assert served.cloister("up", timeout_s=120).code == 0
    assert served.engine is not None
    (name,) = services(served)
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}} {{end}}"
    addresses = served.engine("inspect", f"--format={template}", name).split()
    assert addresses
    for address in addresses:
        assert talk(served, address, 5432) == "no: Connection refused"


def test_a_service_that_never_gets_ready_starts_nothing(served: World) -> None:
    path = served.cloister.home / ".config/cloister/config.toml"
    served.cloister.configure(
        path.read_text()
        .replace("LocalPort=>$p", "LocalPort=>9")
        .replace("[services.echo]", "[services.echo]\nhealth_timeout = 2")
    )
    done = served.cloister("up", timeout_s=120)
    assert done.code == 125, done
    assert "echo" in done.err
    assert served.containers() == []
