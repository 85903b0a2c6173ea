"""What is missing or wrong is one sentence and what to type, and nothing is left (docker and podman)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import World
from tests.engines import IMAGE


@pytest.fixture
def contained(world: World) -> World:
    if world.engine is None:
        pytest.skip("for container engines")
    return world


def nothing_is_left(world: World) -> None:
    assert world.containers() == []
    runs = world.cloister.state / "runs"
    assert not runs.exists() or list(runs.iterdir()) == []
    assert list(world.cloister.project.iterdir()) == []


def test_an_image_that_is_not_there(contained: World) -> None:
    done = contained.cloister("run", "--image", "example.test/none:1", "--", "/bin/true", timeout_s=120)
    assert done.code == 125
    assert done.err.startswith("cloister: the image 'example.test/none:1' is not there\n")
    assert f"{contained.runtime} pull example.test/none:1" in done.err


def test_our_image_that_is_not_built(contained: World) -> None:
    done = contained.cloister("run", "--image", "elixir", "--", "/bin/true", timeout_s=120)
    assert done.code == 125
    assert f"cloister image build elixir --runtime {contained.runtime}" in done.err


def test_an_engine_that_does_not_answer(contained: World) -> None:
    if contained.runtime != "docker":
        pytest.skip("podman has no daemon")
    environment = {"DOCKER_HOST": f"unix://{contained.cloister.base}/none.sock"}
    done = contained.cloister("run", "--", "/bin/true", environment=environment, timeout_s=120)
    assert (done.code, done.err.splitlines()[0]) == (125, "cloister: the docker engine does not answer")


def test_an_engine_without_permission(contained: World) -> None:
    if contained.name != "docker":
        pytest.skip("root may")
    import socket

    path = contained.cloister.base / "closed.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(os.fspath(path))
        path.chmod(0o600)
        environment = {"DOCKER_HOST": f"unix://{path}"}
        done = contained.cloister("run", "--", "/bin/true", environment=environment, timeout_s=120)
    assert (done.code, done.err.splitlines()[0]) == (125, "cloister: you may not use the docker engine")
    assert "--runtime podman" in done.err


def test_a_command_that_is_not_there(contained: World) -> None:
    done = contained.cloister("run", "--", "no-such-command", timeout_s=120)
    assert (done.code, done.err) == (127, "cloister: 'no-such-command' was not found in the sandbox's PATH\n")
    nothing_is_left(contained)


def test_an_image_with_nothing_in_it_but_one_program(contained: World) -> None:
    """Any image: no shell, no users, no certificates. Our own runtime image is such a one."""
    assert contained.engine is not None
    assert contained.cloister("run", "--", "/bin/true", timeout_s=120).code == 0  # brings it in
    listed = contained.engine(
        "images", "--format={{.Repository}}:{{.Tag}}", "--filter=label=dev.cloister.runtime"
    )
    bare = listed.split()[0]
    python = os.path.realpath(sys.executable)
    script = "import os; print(os.getuid() > 0, os.environ['HOME']); raise SystemExit(6)"
    done = contained.cloister("run", "--image", bare, "--", python, "-I", "-S", "-c", script, timeout_s=120)
    assert (done.code, done.out) == (6, f"True {contained.cloister.home}\n"), done
    up = contained.cloister("up", "--image", bare, timeout_s=120)
    assert (up.code, "has no `sleep`" in up.err) == (125, True), up
    nothing_is_left(contained)


def test_an_images_own_entry_point_user_and_variables_widen_nothing(contained: World) -> None:
    """CFG-2: what an image says of itself."""
    engine = contained.engine
    assert engine is not None
    hostile = f"cloister-contract-hostile-{os.getpid()}"
    changes = ('ENTRYPOINT ["/bin/false"]', "USER 0", 'VOLUME ["/var/data"]', "ENV LD_PRELOAD=/evil.so HOME=/root",
               "HEALTHCHECK CMD /bin/false", "LABEL dev.cloister.sandbox=x", "WORKDIR /nowhere")  # fmt: skip
    container = engine("create", "--network=none", IMAGE, "/bin/true").split()[-1]
    engine(
        "commit",
        *(f"--change={one}" for one in changes if "HEALTH" not in one or engine.program == "docker"),
        container,
        hostile,
    )
    engine("rm", container)
    try:
        script = 'echo "$(id -u) $HOME $PWD"; touch /nowhere/x 2>/dev/null || echo closed'
        done = contained.cloister("run", "--image", hostile, "--", "/bin/sh", "-c", script, timeout_s=120)
        assert done.code == 0, done.err
        uid, home, directory = done.out.splitlines()[0].split()
        assert (uid != "0", home, directory) == (
            True,
            str(contained.cloister.home),
            str(contained.cloister.project),
        )
        assert done.out.splitlines()[1] == "closed"
    finally:
        engine("rmi", hostile)


def test_the_holder_has_given_everything_up(contained: World) -> None:
    """The namespace's owner: no capability that it could use, no new privileges, and nothing of the agent's."""
    assert contained.engine is not None
    assert contained.cloister("up", timeout_s=120).code == 0
    (holder,) = [name for name in contained.containers() if name.endswith("-holder")]
    pid = contained.engine("inspect", "--format={{.State.Pid}}", holder)
    status = dict(
        line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert {status[key] for key in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert contained.sh("ls /cloister-holder 2>&1 | grep -c 'No such file'").out == "1\n"
