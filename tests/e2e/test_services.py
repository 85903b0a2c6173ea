"""Services of real engines: reached by name and port from a sandbox, and nothing else of the engine's networks.

The images hold no database: the service is a few lines of Perl, which Debian's minimal system has.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_lifecycle import eventually
from tests.engines import IMAGE, Engine
from tests.world import DEADLINE_S, Cloister, Identity

pytestmark = [pytest.mark.sandbox, pytest.mark.engine, pytest.mark.timeout(300)]

# Answers each line with what the service knows, from one port; counts its starts in its data.
PERL = (
    "use IO::Socket; $|=1; $SIG{TERM}=sub{exit}; print qq(ready for $ENV{PASS}\\n); "
    "if (-d q(/data)) {open F,q(>>/data/starts); print F qq(.); close F; $n=-s q(/data/starts);} "
    "exit 3 if $ENV{BROKEN}; "
    "$s=IO::Socket::INET->new(LocalPort=>5432,Listen=>5,ReuseAddr=>1); "
    "while($c=$s->accept){$l=<$c>; print $c qq($ENV{GREETING} $ENV{PASS} $n $l); close $c}"
)
ASK = "import socket; s = socket.create_connection(('echo', 5432), 20); s.sendall(b'me\\n'); print(s.recv(200).decode(), end='')"


@pytest.fixture
def served(world: Callable[[Identity], Cloister], docker: Engine, tmp_path: Path) -> Iterator[Cloister]:
    """A world as root, whose engine is the tests' dockerd; what it made is removed."""
    if os.geteuid() != 0:
        pytest.skip("the tests' dockerd is root's")
    one = world(Identity(name="root", uid=0, gid=0))
    one.extra_environment.update(DOCKER_HOST=docker.environment["DOCKER_HOST"], PGPASS="s3cr3t-value")
    yield one
    one("services", "rm", "--volumes")


def declare(cloister: Cloister, extra: str = "", name: str = "echo") -> None:
    cloister.configure(
        f"""
[services.{name}]
image = "{IMAGE}"
port = 5432
env = {{ GREETING = "hello there" }}
env_from = {{ PASS = "env:PGPASS" }}
volume = "/data"
command = ["perl", "-e", '''{PERL}''']
{extra}
"""
    )


def containers(engine: Engine) -> list[str]:
    return sorted(
        engine("ps", "--all", "--format", "{{.Names}}", "--filter", "label=dev.cloister.service").split()
    )


def test_a_service_runs_as_long_as_a_sandbox_uses_it_and_keeps_its_data(
    served: Cloister, docker: Engine
) -> None:
    declare(served)
    for starts in (1, 2):
        done = served.run("python3", "-c", ASK)
        assert done.out == f"hello there s3cr3t-value {starts} me\n", done.err
        assert "stopping service echo" in done.err
        assert containers(docker) == []
    (event,) = [one for one in served.events("connect") if one["host"] == "echo"][:1]
    assert (event["port"], event["rule"]) == (5432, "service:echo")


def test_the_secret_is_in_no_argument_and_no_file_of_ours(served: Cloister, docker: Engine) -> None:
    declare(served)
    assert served("services", "start").code == 0
    for directory, _, names in os.walk(served.home / ".local"):
        for name in names:
            assert b"s3cr3t-value" not in (Path(directory) / name).read_bytes(), name
    (container,) = containers(docker)
    described = json.loads(docker("inspect", container))[0]
    assert "s3cr3t-value" not in json.dumps(
        [described["Args"], described["Path"], described["Config"]["Labels"]]
    )


def test_services_that_were_started_by_hand_run_on(served: Cloister, docker: Engine) -> None:
    declare(served)
    done = served("services", "start")
    assert done.out == "echo is ready; in a sandbox: echo:5432\n", done.err
    assert served.run("python3", "-c", ASK).out.endswith(" 1 me\n")
    assert len(containers(docker)) == 1
    (row,) = json.loads(served("services", "list", "--json").out)
    assert (row["name"], row["state"], row["held"]) == ("echo", "running", True)
    assert "echo" in served("services", "list").out
    assert served("services", "stop").code == 0
    assert containers(docker) == []
    (row,) = json.loads(served("services", "list", "--json").out)
    assert (row["state"], row["held"]) == ("stopped", False)
    assert "removed the volume" in served("services", "rm", "--volumes").out
    assert served.run("python3", "-c", ASK).out.endswith(" 1 me\n"), "the data has gone"


def test_a_kept_service_runs_on(served: Cloister, docker: Engine) -> None:
    declare(served, "keep = true")
    assert served.run("true").code == 0
    assert len(containers(docker)) == 1
    assert served.run("python3", "-c", ASK).out.endswith(" 1 me\n")


def test_worktrees_share_their_services(served: Cloister, docker: Engine) -> None:
    """Started once, whoever comes first, and stopped with the last."""
    declare(served)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for arguments in (
        ["init", "-q"],
        ["commit", "-q", "--allow-empty", "-m", "x"],
        ["worktree", "add", "-q", "../tree"],
    ):
        subprocess.run(
            [*git, *arguments], cwd=served.project, check=True, env=served.environment(), capture_output=True
        )
    first = served.start("run", "--", "sh", "-c", "echo started; read line")
    assert first.stdout is not None
    assert first.stdout.readline() == "started\n", first.communicate(timeout=30)
    done = served.run("python3", "-c", ASK, cwd=served.home / "tree")
    assert done.out == "hello there s3cr3t-value 1 me\n", done.err
    assert "stopping" not in done.err
    assert len(containers(docker)) == 1
    first.communicate("\n", timeout=DEADLINE_S)
    assert containers(docker) == []


def test_a_changed_service_is_not_replaced_under_those_who_use_it(served: Cloister, docker: Engine) -> None:
    declare(served)
    first = served.start("run", "--", "sh", "-c", "echo started; read line")
    assert first.stdout is not None
    assert first.stdout.readline() == "started\n", first.communicate(timeout=30)
    before = containers(docker)
    declare(served, "keep = true")
    done = served.run("true")
    assert done.code == 125
    assert 'service "echo" runs with another configuration, and is in use' in done.err
    assert containers(docker) == before
    first.communicate("\n", timeout=DEADLINE_S)
    assert served.run("true").code == 0


def test_a_killed_session_lets_go_with_the_next_command(served: Cloister, docker: Engine) -> None:
    declare(served)
    process = served.start("run", "--", "sh", "-c", "echo started; exec sleep 600")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    eventually(lambda: not served.processes(), "everything of the sandbox is gone")
    assert len(containers(docker)) == 1
    assert served("policy", "show").code == 0
    assert containers(docker) == []


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (
            'health = ["false"]\nhealth_timeout = 2',
            'was not ready within 2 s: its check "false" ends with exit code 1',
        ),
        ('health = ["no-such-program"]', 'its check "no-such-program" cannot be run in the container'),
        ("ports = [9]\nhealth_timeout = 2", "was not ready within 2 s: port 9: nothing listens"),
    ],
)
def test_a_service_that_never_gets_healthy(served: Cloister, docker: Engine, extra: str, told: str) -> None:
    declare(served, extra)
    done = served.run("touch", "started")
    assert done.code == 125
    assert told in done.err
    assert "ready for ***" in done.err, "its last words, without its secret"
    assert "s3cr3t-value" not in done.err
    assert not (served.project / "started").exists()
    assert containers(docker) == [], "nothing half made stays"
    assert docker("network", "ls", "--quiet", "--filter", "label=dev.cloister.repository") == ""


def test_a_service_that_ends_is_told_at_once(served: Cloister, docker: Engine) -> None:
    declare(served)
    path = served.home / ".config/cloister/config.toml"
    served.configure(path.read_text().replace("GREETING =", 'BROKEN = "1", GREETING ='))
    done = served.run("true")
    assert done.code == 125
    assert 'service "echo" does not become ready: its container has ended with exit code 3' in done.err
    assert containers(docker) == []


def test_an_image_that_does_not_exist(served: Cloister, docker: Engine) -> None:
    served.configure('[services.echo]\nimage = "localhost:1/no-such-image:1"\nport = 1')
    done = served.run("true")
    assert done.code == 125
    assert (
        'there is no image "localhost:1/no-such-image:1" for service "echo", and it cannot be pulled'
        in done.err
    )
    assert containers(docker) == []


def test_a_secret_that_cannot_be_had_starts_nothing(served: Cloister, docker: Engine) -> None:
    declare(served)
    del served.extra_environment["PGPASS"]
    done = served.run("true")
    assert done.code == 125
    assert 'credential "PASS of service echo" cannot be had from env' in done.err
    assert containers(docker) == []


def test_no_engine(user_cloister: Cloister) -> None:
    declare(user_cloister)
    programs = user_cloister.directory(user_cloister.home / "bin")
    (programs / "setpriv").symlink_to("/usr/bin/setpriv")
    user_cloister.extra_environment["PATH"] = str(programs)
    done = user_cloister("services", "start")
    assert done.code == 125
    assert "there is no container engine" in done.err


def test_an_engine_that_does_not_answer(user_cloister: Cloister, docker: Engine) -> None:
    declare(user_cloister)
    user_cloister.extra_environment["DOCKER_HOST"] = "unix:///nonexistent/docker.sock"
    user_cloister.configure((user_cloister.home / ".config/cloister/config.toml").read_text())
    done = user_cloister("services", "start")
    assert done.code == 125
    assert "Traceback" not in done.err
    assert "→" in done.err


ATTACK = """
import socket, sys
reached = []
for address, port in {targets!r}:
    try:
        with socket.create_connection((address, port), 3) as sock:
            sock.settimeout(3)
            sock.sendall(b"hello\\n")
            if data := sock.recv(100):
                if not data.startswith(b"HTTP/1.1 4") :
                    reached.append((address, port, data))
    except OSError:
        pass
print(reached)
"""


@pytest.mark.parametrize("extra", ["", "unsafe_egress = true"])
def test_net_7_only_the_services_name_and_port_are_reached(
    served: Cloister, docker: Engine, extra: str
) -> None:
    """Not its other ports, its address, its network's gateway, a sibling container, nor the host's ports at its address."""
    declare(served, extra)
    assert served("services", "start").code == 0
    docker(
        "run",
        "--detach",
        "--name",
        "services-sibling",
        "--network",
        _network(docker),
        IMAGE,
        "perl",
        "-e",
        PERL,
    )
    try:
        (container,) = containers(docker)
        addresses = [_address(docker, container), _address(docker, "services-sibling"), _gateway(docker)]
        with socket.create_server(("0.0.0.0", 0)) as host:
            threading.Thread(target=_say, args=(host,), daemon=True).start()
            number = host.getsockname()[1]
            targets = [(address, port) for address in addresses for port in (5432, 80, number)]
            targets += [("echo", number), ("echo", 22), ("services-sibling", 5432), ("127.0.0.1", 5432)]
            for options in ([], ["--allow", f"tcp://echo:{number}"], ["--allow", f"echo:{number}"]):
                done = served("run", *options, "--", "python3", "-c", ATTACK.format(targets=targets))
                assert done.out == "[]\n", (options, done.err)
        assert served.run("python3", "-c", ASK).out.endswith("me\n"), "and it is there all the while"
    finally:
        docker("rm", "--force", "services-sibling")


def test_net_7_a_service_has_no_way_out(served: Cloister, docker: Engine) -> None:
    """An agent that can make a service run a command (a database's superuser can) gains no network by it."""
    declare(served)
    assert served("services", "start").code == 0
    (container,) = containers(docker)
    assert docker("network", "inspect", "--format", "{{.Internal}}", _network(docker)) == "true"
    resolve = "print defined(gethostbyname($ARGV[0])) ? qq(found) : qq(none)"
    assert docker("exec", container, "perl", "-e", resolve, "example.com") == "none"
    assert docker("exec", container, "perl", "-e", resolve, "echo") == "found"
    declare(served, "unsafe_egress = true")  # the positive control: its network is another one then
    assert served("services", "start").code == 0
    assert docker("network", "inspect", "--format", "{{.Internal}}", _network(docker).split()[-1]) == "false"


def test_a_container_of_a_compose_network(served: Cloister, docker: Engine) -> None:
    docker("network", "create", "services-acme")
    docker("run", "--detach", "--name", "services-acme-db", "--network", "services-acme", "-e", "GREETING=composed", IMAGE, "perl", "-e", PERL)  # fmt: skip
    try:
        served.configure(
            '[services.echo]\ncompose_network = "services-acme"\ncontainer = "services-acme-db"\nport = 5432'
        )
        assert served.run("python3", "-c", ASK).out == "composed   me\n"
        assert docker("inspect", "--format", "{{.State.Running}}", "services-acme-db") == "true", (
            "it is not ours to stop"
        )
        docker("stop", "--time", "1", "services-acme-db")
        done = served.run("true")
        assert done.code == 125
        assert 'the container "services-acme-db" of service "echo" does not run' in done.err
    finally:
        docker("rm", "--force", "services-acme-db")
        docker("network", "rm", "services-acme")


def test_services_are_started_only_where_something_declared_is_reached(
    served: Cloister, docker: Engine
) -> None:
    declare(served)
    for profile in ("offline", "registries"):
        assert served("run", "--profile", profile, "--", "true").code == 0
        assert not re.search("service", served("run", "--profile", profile, "--", "true").err)
    assert containers(docker) == []


def test_a_project_declares_only_what_was_adopted(served: Cloister, docker: Engine) -> None:
    declare(served)
    text = (served.home / ".config/cloister/config.toml").read_text()
    served.configure("")
    served.write(served.project / "cloister.toml", text)
    done = served.run("true")
    assert done.code == 125
    assert "has not been adopted" in done.err
    assert containers(docker) == []


def test_interrupted_while_it_waits(served: Cloister, docker: Engine) -> None:
    declare(served, 'health = ["false"]\nhealth_timeout = 600')
    process = served.start("run", "--", "true")
    assert process.stderr is not None
    assert "waiting for service echo" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert containers(docker) == []


def test_podman(world: Callable[[Identity], Cloister], podman: Engine) -> None:
    """Whether this machine reaches an internal network of it depends on its version; if not, a clear word says so."""
    one = world(Identity(name="root", uid=0, gid=0))
    environment = {name: value for name, value in podman.environment.items() if name != "HOME"}
    one.extra_environment.update(environment, PGPASS="s3cr3t-value", DOCKER_HOST="unix:///nonexistent")
    declare(one)
    done = one.run("python3", "-c", ASK)
    if done.code:
        assert 'service "echo" is where this machine cannot reach it' in done.err
        assert "unsafe_egress = true publishes it on the loopback" in done.err
    else:
        assert done.out.endswith("me\n")
    assert containers(podman) == []
    declare(one, "unsafe_egress = true")
    done = one.run("python3", "-c", ASK)
    assert done.out.startswith("hello there s3cr3t-value"), done.err
    assert one("services", "rm", "--volumes").code == 0
    assert containers(podman) == []


def _say(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"the host's own\n")


def _network(engine: Engine) -> str:
    return engine("network", "ls", "--format", "{{.Name}}", "--filter", "label=dev.cloister.repository")


def _address(engine: Engine, container: str) -> str:
    return engine(
        "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container
    )


def _gateway(engine: Engine) -> str:
    return engine(
        "network", "inspect", "--format", "{{range .IPAM.Config}}{{.Gateway}}{{end}}", _network(engine)
    )
