"""The judges of services: what is run, what an engine said, and when a service is ready."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloister.policy.service import Service, parse_document
from cloister.services import inspected, ready, render
from cloister.services.inspected import Container
from cloister.services.ready import Failed, Probe, Ready, Verdict, Waiting

TESTS = Path(__file__).parents[2]
CASES = tomllib.loads((TESTS / "cases/service_inspects.toml").read_text())
POSTGRES = Service(
    name="postgres",
    ports=(5432,),
    image="postgres:16",
    environment={"POSTGRES_USER": "acme", "OPTIONS": "-c fsync=off"},
    secrets={"POSTGRES_PASSWORD": "env:PGPASS"},
    volume="/var/lib/postgresql/data",
    command=("postgres", "-c", "log_statement=all"),
    health="command",
    health_command=("pg_isready", "-U", "acme"),
)
RUNNING = Container(
    name="c", status="running", exit_code=0, health="", image_id="", labels={}, addresses={}, published={}
)


def rendered() -> str:
    """One argument a line, as a person can compare them."""
    open_ = replace(
        POSTGRES, name="mock", ports=(80, 9000), volume="", command=(), keep=True, unsafe_egress=True
    )
    parts = {
        "a database": render.run(POSTGRES, "acme-0123456789ab", "/proc/self/fd/9"),
        "with a way out, two ports, kept": render.run(open_, "acme-0123456789ab", "/proc/self/fd/9"),
        "its network": render.network_create("acme-0123456789ab", unsafe_egress=False),
        "a network with a way out": render.network_create("acme-0123456789ab", unsafe_egress=True),
        "list": render.listing("acme-0123456789ab"),
        "stop": render.stop("cloister-service-acme-0123456789ab-postgres"),
        "remove": render.remove("cloister-service-acme-0123456789ab-postgres"),
    }
    return "\n".join(f"# {title}\n" + "\n".join(argv) + "\n" for title, argv in parts.items())


def test_the_engines_command_lines() -> None:
    assert rendered() == (TESTS / "golden/services/docker.txt").read_text()


def test_no_variable_and_no_secret_is_an_argument() -> None:
    argv = " ".join(render.run(POSTGRES, "acme", "/proc/self/fd/9"))
    for text in ("POSTGRES_USER", "fsync", "POSTGRES_PASSWORD", "PGPASS"):
        assert text not in argv


def test_the_file_of_variables() -> None:
    assert render.environment_file({"A": b"b c=d", "E": b""}) == b"A=b c=d\nE=\n"
    for value in (b"a\nPATH=/evil", b"a\rb", b"a\0b"):
        with pytest.raises(ValueError, match="one line"):
            render.environment_file({"A": value})


def test_a_changed_service_has_another_configuration() -> None:
    seen = {render.configuration(POSTGRES)}
    for changed in (
        replace(POSTGRES, image="postgres:17"),
        replace(POSTGRES, environment={}),
        replace(POSTGRES, secrets={"POSTGRES_PASSWORD": "env:OTHER"}),
        replace(POSTGRES, command=()),
        replace(POSTGRES, unsafe_egress=True),
    ):
        seen.add(render.configuration(changed))
    assert len(seen) == 6
    assert render.configuration(parse_document([POSTGRES.document()])[0]) in seen


@pytest.mark.parametrize("case", CASES["container"], ids=lambda case: case["name"])
def test_what_an_engine_says_of_a_container(case: dict[str, Any]) -> None:
    (found,) = inspected.containers(case["json"].encode())
    assert (found.name, found.status, found.health, found.image_id) == (
        case["container"], case["status"], case["health"], case["image"],
    )  # fmt: skip
    assert found.addresses == case["addresses"]
    assert found.published == {int(port): real for port, real in case["published"].items()}


@pytest.mark.parametrize("case", CASES["network"], ids=lambda case: case["name"])
def test_what_an_engine_says_of_a_network(case: dict[str, Any]) -> None:
    assert list(inspected.gateways(case["json"].encode())) == case["gateways"]


@pytest.mark.parametrize("text", [b"", b"{}", b"no json", b'"x"'])
def test_what_is_no_list_of_containers_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        inspected.containers(text)


OPEN = {5432: Probe.OPEN}
IMAGE, TCP = replace(POSTGRES, health="image"), replace(POSTGRES, health="tcp")


@pytest.mark.parametrize(
    ("service", "container", "probes", "code", "expected"),
    [
        (TCP, RUNNING, OPEN, None, Ready()),
        (TCP, RUNNING, {}, None, Waiting(reason="port 5432: nothing listens")),
        (TCP, RUNNING, {5432: Probe.CLOSED}, None, Waiting(reason="port 5432: the connection ends at once")),
        (TCP, None, OPEN, None, Failed(reason="its container is gone")),
        (TCP, replace(RUNNING, status="created"), OPEN, None, Waiting(reason="its container is created")),
        (TCP, replace(RUNNING, status=""), OPEN, None, Waiting(reason="its container is not there yet")),
        (TCP, replace(RUNNING, status="exited", exit_code=3), OPEN, None, Failed(reason="its container has ended with exit code 3")),
        (replace(TCP, ports=(1, 5432)), RUNNING, OPEN, None, Waiting(reason="port 1: nothing listens")),
        (IMAGE, RUNNING, OPEN, None, Ready()),
        (IMAGE, replace(RUNNING, health="healthy"), OPEN, None, Ready()),
        (IMAGE, replace(RUNNING, health="healthy"), {}, None, Waiting(reason="port 5432: nothing listens")),
        (IMAGE, replace(RUNNING, health="starting"), OPEN, None, Waiting(reason="its image's own check says: starting")),
        (IMAGE, replace(RUNNING, health="unhealthy"), OPEN, None, Failed(reason="its image's own check says that it is unhealthy")),
        (TCP, replace(RUNNING, health="unhealthy"), OPEN, None, Ready()),
        (POSTGRES, RUNNING, OPEN, 0, Ready()),
        (POSTGRES, RUNNING, OPEN, None, Waiting(reason='its check "pg_isready" has not been run')),
        (POSTGRES, RUNNING, OPEN, 2, Waiting(reason='its check "pg_isready" ends with exit code 2')),
        (POSTGRES, RUNNING, OPEN, 127, Failed(reason='its check "pg_isready" cannot be run in the container')),
        (POSTGRES, RUNNING, {}, 0, Waiting(reason="port 5432: nothing listens")),
    ],
)  # fmt: skip
def test_a_service_is_ready_only_if_all_says_so(
    service: Service,
    container: Container | None,
    probes: dict[int, Probe],
    code: int | None,
    expected: Verdict,
) -> None:
    assert ready.judge(service, container, probes, code) == expected
