"""`confirm = true`: nobody but the user lets a credential be used, from another command or on a free terminal."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Iterator

import pytest

from tests.fakes.origins import Authority
from tests.fakes.web_origin import WebOrigin
from tests.world import Cloister

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(120)]

API = "api.example.test"
TOKEN = "sesame-open-R3al0123456789"
ASK = f"curl -sS --max-time 60 -w '%{{http_code}}' https://{API}/"
DEADLINE_S = 30.0


@pytest.fixture
def asking(cloister: Cloister, authority: Authority) -> Iterator[tuple[Cloister, WebOrigin]]:
    """A world whose only credential asks."""
    with WebOrigin(authority, API) as origin:
        ca = cloister.write(cloister.home / "ca.pem", authority.pem)
        cloister.configure(
            f'[network]\nupstream_ca = ["{ca}"]\n[network.hosts]\n"{API}" = "127.0.0.1:{origin.port}"\n'
            f'[[credential]]\nname = "api"\nsource = "env:REAL_TOKEN"\nhosts = ["{API}"]\ninject = "bearer"\nconfirm = true\n'
        )
        cloister.extra_environment["REAL_TOKEN"] = TOKEN
        yield cloister, origin


def test_approve_lets_it_go_on(asking: tuple[Cloister, WebOrigin]) -> None:
    cloister, origin = asking
    process = cloister.start("run", "--", "sh", "-c", f"{ASK}; {ASK}")
    cloister.until_asked("api")
    assert not origin.seen
    assert cloister("approve", "api").code == 0
    out, err = process.communicate(timeout=DEADLINE_S)
    assert out.endswith("200"), (out, err)
    assert "may requests of this sandbox use the credential" in err
    assert [request.headers["authorization"] for request in origin.seen] == [f"Bearer {TOKEN}"] * 2
    assert err.count("may requests") == 1, "asked once for the sandbox's life"
    assert TOKEN not in out + err


def test_a_no_is_a_no(asking: tuple[Cloister, WebOrigin]) -> None:
    cloister, origin = asking
    process = cloister.start("run", "--", "sh", "-c", f"{ASK}; {ASK}")
    cloister.until_asked("api")
    assert cloister("approve", "--deny", "api").code == 0
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert out.count("the user has refused the use of credential") >= 2
    assert not origin.seen


@pytest.mark.parametrize(("typed", "expected"), [(b"y\n", "200"), (b"\n", "refused the use")])
def test_the_terminal_is_asked_if_the_command_does_not_read_it(
    asking: tuple[Cloister, WebOrigin], typed: bytes, expected: str
) -> None:
    cloister, _ = asking
    argv = cloister.argv(["run", "--", "sh", "-c", ASK])
    pid, terminal = pty.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.chdir(cloister.project)
        os.execvpe(argv[0], argv, cloister.environment())
    said, answered = b"", False
    end = time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    said += os.read(terminal, 65536)
                except OSError:  # EIO: all have closed it
                    break
            if b"[y/N]" in said and not answered:
                os.write(terminal, typed)
                answered = True
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    assert answered, said
    assert expected in said.decode(), said


def test_a_sandbox_cannot_answer_itself(asking: tuple[Cloister, WebOrigin]) -> None:
    """The socket is not in its view, and its own namespace is not the user's."""
    cloister, origin = asking
    done = cloister.sh(
        f"(ls -R /run/cloister; find / -name '*.sock' -not -path '/proc/*' 2>/dev/null; true) | grep -c 'sock$';"
        f" timeout 3 {ASK}; echo"
    )
    assert done.out.startswith("0\n"), done
    assert not origin.seen
