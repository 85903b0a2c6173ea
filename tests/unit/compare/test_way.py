"""How the program reaches a network through another's proxy, or without one: against a proxy of the test's own."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import compare
import pytest
from compare.attack import argv

from cloister.verify import program

WAY = Path(compare.__file__).with_name("way.py").read_text(encoding="utf-8")


class Proxy:
    """Takes one name, and says so; writes down every head."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heads: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def _serve(self) -> None:
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (part := connection.recv(4096)):
                    head += part
                self.heads.append(head)
                status = b"200 OK" if b"open.test" in head else b"403 No"
                connection.sendall(b"HTTP/1.1 " + status + b"\r\n\r\nwhat follows")


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    found = Proxy()
    yield found
    found.listener.close()


def made(**config: object) -> dict[str, object]:
    """The program's names, as in a sandbox: it does nothing by itself."""
    whole = program.text(WAY).replace("if CONFIG:\n    main()", "")
    names: dict[str, object] = {
        "CONFIG": {"names": {"bound": "bound.test", "plain": "plain.test"}, **config},
        "__name__": "inside",
    }
    exec(compile(whole, "probes", "exec"), names)
    return names


def test_the_text_is_one_valid_program_in_which_the_way_is_the_later_one() -> None:
    text = program.text(WAY)
    compile(text, "probes", "exec")
    assert "from cloister" not in text
    assert "from compare" not in text
    assert text.index("def plain_http") > text.rindex("def answer(")
    assert "def plain_http" not in program.text()


def test_a_name_that_the_proxy_takes_stands_for_itself(proxy: Proxy) -> None:
    names = made(proxy=f"http://us:pass%2Bword@127.0.0.1:{proxy.port}")
    assert names["resolve"]("open.test") == "open.test"  # type: ignore[operator]
    with pytest.raises(names["RefusedError"]):  # type: ignore[call-overload]
        names["resolve"]("evil.test")  # type: ignore[operator]
    assert b"CONNECT open.test:443 HTTP/1.1\r\n" in proxy.heads[0]
    assert base64.b64encode(b"us:pass+word") in proxy.heads[0]


def test_nothing_behind_the_proxys_answer_is_read_away(proxy: Proxy) -> None:
    names = made(proxy=f"http://127.0.0.1:{proxy.port}")
    with names["tunnel"]("open.test:443") as stream:  # type: ignore[operator]
        assert stream.recv(100) == b"what follows"


def test_plain_http_goes_to_the_proxy_as_it_is(proxy: Proxy) -> None:
    names = made(proxy=f"http://127.0.0.1:{proxy.port}")
    assert names["get"]("/path", "plain.test").startswith(b"GET http://plain.test/path HTTP/1.1\r\n")  # type: ignore[operator]
    with names["dial"]("plain.test", 80) as stream:  # type: ignore[operator]
        assert stream.getpeername()[1] == proxy.port


def test_without_a_proxy_a_client_goes_there_itself() -> None:
    names = made()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        names["tunnel"](f"127.0.0.1:{port}").close()  # type: ignore[operator]
        listener.accept()[0].close()
    assert names["get"]("/path", "plain.test").startswith(b"GET /path HTTP/1.1\r\n")  # type: ignore[operator]
    with pytest.raises(ValueError, match="null"):
        names["tunnel"]("a\0b:443")  # type: ignore[operator]


def test_the_client_sends_the_credential_to_its_own_host_where_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", "value")
    names = made(sends=True, variable="TOKEN")
    get = names["get"]
    assert b"Authorization: Bearer value\r\n" in get("/", "bound.test")  # type: ignore[operator]
    assert b"Bearer value" not in get("/", "open.test")  # type: ignore[operator]
    assert b"Bearer value" not in get("/", "bound.test", "aUTHORIZATION: other")  # type: ignore[operator]
    assert b"Bearer value" not in made(variable="TOKEN")["get"]("/", "bound.test")  # type: ignore[operator]


def test_a_command_that_is_one_word_of_a_shell_is_quoted() -> None:
    assert argv(["docker", "run"], quoted=False)[:4] == ["docker", "run", "python3", "-I"]
    (word,) = argv(["srt", "-c"], quoted=True)[2:]
    assert word.startswith("python3 -I -c '")
