"""Single messages: the SSH agent's, the control socket's, a proxy's URL, a repository in a path."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as some

from cloister.credentials import repository
from cloister.errors import UntrustedInputError
from cloister.gateway import control_server, corporate
from cloister.gateway.offload import Offload
from cloister.gateway.upstream import UpstreamError
from cloister.gateway.vault import Vault
from cloister.sshagent import known_hosts
from cloister.sshagent.filter import FAILURE, AgentRules, Answer, Filter, verifies
from cloister.sshagent.wire import string
from tests.fuzz.streams import mutated

KEY = string(b"ssh-ed25519") + string(b"k" * 32)
LOGIN = (
    string(b"session")
    + b"\x32"
    + b"".join(map(string, (b"me", b"ssh-connection", b"publickey")))
    + b"\1"
    + string(b"ssh-ed25519")
    + string(KEY)
)
AGENT = some.sampled_from([
    b"\x0b", b"\x0d" + string(KEY) + string(LOGIN) + bytes(4), b"\x11" + string(KEY), b"\x13",
    b"\x1b" + string(b"session-bind@openssh.com") + string(KEY) + string(b"session") + string(b"sig") + b"\0",
])  # fmt: skip


@given(some.lists(mutated(AGENT, (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x0d")), max_size=5))
def test_no_message_makes_the_agent_sign(messages: list[bytes]) -> None:
    """The key is named, but no host has signed a session."""
    judge = Filter(
        AgentRules(keys=frozenset({"me@test"}), host_keys=frozenset({KEY})), comments={KEY: "me@test"}
    )
    for message in messages:
        answer = judge.request(message)
        if isinstance(answer, Answer):
            assert answer.message == FAILURE
            assert answer.reason.isprintable()
        else:
            assert answer.lists
            assert not answer.signs


@given(
    mutated(some.just(b"\x0c\0\0\0\1" + string(KEY) + string(b"me@test")), (b"\xff\xff\xff\xff", b"\0\0\0\2"))
)
def test_an_agents_list(answer: bytes) -> None:
    judge = Filter(AgentRules(keys=frozenset({"me@test"}), host_keys=frozenset()))
    try:
        shown = judge.identities(answer)
    except UntrustedInputError as error:
        assert str(error).isprintable()
        return
    assert shown == FAILURE or shown[0] == 12


@given(mutated(some.just(KEY), (b"\0\0\0\7ssh-rsa", b"\xff" * 4)), some.binary(max_size=100))
def test_signatures_that_do_not_verify(key: bytes, signature: bytes) -> None:
    assert not verifies(key, signature, b"session")


@given(some.text(max_size=200), some.text(max_size=20))
def test_any_known_hosts(text: str, host: str) -> None:
    known_hosts.keys(text, [host])
    known_hosts.lines(f"{text}\n{host} ssh-ed25519 AAAA\n[", [host])


@given(some.one_of(some.binary(max_size=60), some.recursive(
    some.one_of(some.none(), some.booleans(), some.integers(), some.text(max_size=9), some.sampled_from(["op", "approve", "name"])),
    lambda inner: some.one_of(some.lists(inner, max_size=3), some.dictionaries(some.sampled_from(["op", "name", "x"]), inner, max_size=3)),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_line_on_the_control_socket_is_answered(line: bytes) -> None:
    vault = Vault(
        (), offload=Offload(), environ={}, ask=_never, tell=lambda _: None, untrusted=(),
    )  # fmt: skip
    answer = control_server.answer(vault, line)
    assert json.dumps(answer)
    assert "done" not in answer


async def _never(*_: object) -> bool:
    raise AssertionError("nobody is to be asked")


@given(some.text(max_size=60), some.text(max_size=60))
def test_any_proxy_variable(url: str, exempt: str) -> None:
    try:
        proxy = corporate.proxy_for("api.example.com", 443, {"HTTPS_PROXY": url, "NO_PROXY": exempt})
    except UpstreamError as error:
        assert error.reason.isprintable()
        return
    if proxy is not None:
        assert 0 < proxy.port < 65536
        assert "\r" not in proxy.authorization
        assert "\n" not in proxy.authorization


@given(
    some.sampled_from(["github.com", "api.github.com", "gitlab.com"]),
    some.lists(some.sampled_from(["/", "//", "a", "b.git", "..", "%2e%2e", "%2f", "%252f", "\\", ";x", "api/v4/projects/", "repos/"]), max_size=8).map("".join),
)  # fmt: skip
def test_a_path_names_one_repository_or_none(host: str, path: str) -> None:
    found = repository.of_request(host, "/" + path)
    if found is not None:
        assert found.owner
        assert found.name == found.name.lower()
        assert ".." not in (found.name, *found.owner.split("/"))
