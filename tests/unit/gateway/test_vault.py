"""The vault: what is known, who is asked, what the sandbox and the user are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cloister.errors import CredentialError
from cloister.gateway.offload import Offload
from cloister.gateway.vault import Vault
from cloister.system import proc
from cloister.types import Binding, Credential, HostPattern, QueryInjection, Reach

HOST = "api.example.com"


def credential(name: str, source: str, *, confirm: bool = False) -> Credential:
    pattern = HostPattern(reach=Reach.EXACT, name=HOST)
    binding = Binding(pattern=pattern, injection=QueryInjection(name="k"))
    return Credential(
        name=name, source=source, bindings=(binding,), placeholder=f"cloister_{name}", confirm=confirm
    )


class User:
    """Answers when the test lets it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.withdrawn = 0
        self.told: list[str] = []
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def ask(self, credential: Credential, host: str) -> bool:
        self.asked.append((credential.name, host))
        try:
            return await asyncio.shield(self.answer)
        except asyncio.CancelledError:
            self.withdrawn += 1
            raise


def vault(user: User, *credentials: Credential, **how: object) -> Vault:
    fields: dict[str, object] = {
        "environ": {"TOKEN": "t0ken", "PATH": proc.PATH},
        "ask": user.ask,
        "tell": user.told.append,
        **how,
    }
    return Vault(credentials, offload=Offload(4), **fields)  # type: ignore[arg-type]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), 20)

    asyncio.run(main())


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def test_a_value_is_known_once_it_is_handed_out() -> None:
    async def test() -> None:
        one = credential("one", "env:TOKEN")
        made = vault(User(), one)
        assert made.known() == ()
        value = await made.get(one, HOST)
        assert value.secret.reveal() == b"t0ken"
        assert [secret.reveal() for secret in made.known()] == [b"t0ken"]
        assert await made.get(one, HOST) is value
        assert (made.states()[0].word, made.states()[0].name) == ("in use", "one")

    run(test)


def test_parts_and_older_values_are_known_up_to_a_limit(tmp_path: Path) -> None:
    async def test() -> None:
        keys = tmp_path / "keys"
        now = 1000.0
        one = credential("one", f"file:{keys}")
        made = vault(User(), one, clock=lambda: now, monotonic=lambda: now)
        value = None
        for number in range(12):
            keys.write_text(f"value-{number}")
            keys.chmod(0o600)
            value = await made.get(one, HOST) if value is None else await made.renew(one, value)
            assert value is not None
            assert value.secret.reveal() == b"value-%d" % number
            now += 60
        assert [secret.reveal() for secret in made.known()] == [b"value-%d" % n for n in range(4, 12)]

    run(test)


def test_a_failure_names_the_credential_and_only_the_user_gets_the_details(tmp_path: Path) -> None:
    async def test() -> None:
        user = User()
        one = credential("one", f"file:{tmp_path}/nowhere")
        made = vault(user, one)
        for _ in range(3):
            with pytest.raises(CredentialError) as caught:
                await made.get(one, HOST)
            assert caught.value.brief.startswith(
                'credential "one" cannot be had from file: there is no such file'
            )
            assert str(tmp_path) not in caught.value.brief
        assert len(user.told) == 1
        assert f"source: file:{tmp_path}/nowhere" in user.told[0]
        state = made.states()[0]
        assert state.word == "fails"
        assert "no such file" in state.reason

    run(test)


def test_an_unknown_credential_is_refused() -> None:
    async def test() -> None:
        with pytest.raises(CredentialError, match="no credential"):
            await vault(User()).get(credential("one", "env:TOKEN"), HOST)
        assert await vault(User()).renew(credential("one", "env:TOKEN"), None) is None  # type: ignore[arg-type]

    run(test)


def test_a_bug_does_not_show_what_it_was_about(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("t0ken")

    async def test() -> None:
        one = credential("one", "env:TOKEN")
        monkeypatch.setattr("cloister.secrets.source.value_of", explode)
        with pytest.raises(CredentialError, match="bug in cloister") as caught:
            await vault(User(), one).get(one, HOST)
        assert "t0ken" not in str(caught.value)

    run(test)


def test_no_thread_left_is_an_error_that_names_the_credential() -> None:
    async def test() -> None:
        one, two = credential("one", "exec:sleep 20"), credential("two", "env:TOKEN")
        user = User()
        made = Vault(
            [one, two],
            offload=Offload(1, wait_s=0.1),
            environ={"TOKEN": "t0ken", "PATH": proc.PATH},
            ask=user.ask,
        )
        slow = asyncio.create_task(made.get(one, HOST))
        await asyncio.sleep(0.05)
        with pytest.raises(CredentialError, match='credential "two" cannot be had: too many others wait'):
            await made.get(two, HOST)
        made.close()
        with pytest.raises(CredentialError, match="signal 9"):
            await slow

    run(test)


def test_many_requests_wait_for_one_question_and_the_answer_is_remembered() -> None:
    async def test() -> None:
        user = User()
        one = credential("one", "env:TOKEN", confirm=True)
        made = vault(user, one)
        waiting = [asyncio.create_task(made.get(one, HOST)) for _ in range(20)]
        await settle()
        assert user.asked == [("one", HOST)]
        assert made.known() == (), "nothing is fetched before"
        assert [(each.name, each.host) for each in made.pending()] == [("one", HOST)]
        assert made.states()[0].word == "waits for your answer"
        waiting[0].cancel()  # a client that goes away does not withdraw the question
        await settle()
        user.answer.set_result(True)
        values = await asyncio.gather(*waiting[1:])
        assert {value.secret.reveal() for value in values} == {b"t0ken"}
        await made.get(one, HOST)
        assert len(user.asked) == 1
        assert made.pending() == ()

    run(test)


def test_a_no_stays_one_until_the_user_says_otherwise() -> None:
    async def test() -> None:
        user = User()
        one = credential("one", "env:TOKEN", confirm=True)
        made = vault(user, one)
        user.answer.set_result(False)
        for _ in range(3):
            with pytest.raises(
                CredentialError, match='the user has refused the use of credential "one"'
            ) as caught:
                await made.get(one, HOST)
            assert "cloister approve one" in caught.value.resolution
        assert len(user.asked) == 1, "the sandbox cannot make us ask twice"
        assert made.states()[0].word == "refused"
        assert made.decide("one", allowed=True)
        value = await made.get(one, HOST)
        assert made.decide("one", allowed=False)
        with pytest.raises(CredentialError, match="refused"):
            await made.get(one, HOST)
        assert await made.renew(one, value) is None

    run(test)


def test_another_command_answers_and_the_question_is_withdrawn() -> None:
    async def test() -> None:
        user = User()
        one = credential("one", "env:TOKEN", confirm=True)
        made = vault(user, one)
        waiting = asyncio.create_task(made.get(one, HOST))
        await settle()
        assert made.decide("one", allowed=True)
        assert (await waiting).secret.reveal() == b"t0ken"
        assert user.withdrawn == 1

    run(test)


def test_no_answer_in_time_is_a_no() -> None:
    async def test() -> None:
        user = User()
        one = credential("one", "env:TOKEN", confirm=True)
        made = vault(user, one, confirm_s=0.1)
        for _ in range(2):
            with pytest.raises(CredentialError, match='nobody allowed the use of credential "one" within'):
                await made.get(one, HOST)
        assert len(user.asked) == 1
        assert user.withdrawn == 1
        assert made.decide("one", allowed=True)
        await made.get(one, HOST)

    run(test)


def test_nobody_to_ask_leaves_the_other_command() -> None:
    async def test() -> None:
        async def broken(_: Credential, __: str) -> bool:
            raise OSError("no terminal")

        one = credential("one", "env:TOKEN", confirm=True)
        made = vault(User(), one, ask=broken)
        waiting = asyncio.create_task(made.get(one, HOST))
        await settle()
        assert made.pending()
        made.decide("one", allowed=True)
        assert (await waiting).secret.reveal() == b"t0ken"

        unanswered = vault(User(), one, ask=broken, confirm_s=0.05)
        with pytest.raises(CredentialError, match="nobody allowed"):
            await unanswered.get(one, HOST)

    run(test)


def test_only_true_is_a_yes() -> None:
    async def test() -> None:
        async def odd(_: Credential, __: str) -> bool:
            return "no"  # type: ignore[return-value]

        one = credential("one", "env:TOKEN", confirm=True)
        with pytest.raises(CredentialError, match="refused"):
            await vault(User(), one, ask=odd).get(one, HOST)

    run(test)


def test_what_asks_nobody_cannot_be_decided() -> None:
    async def test() -> None:
        made = vault(User(), credential("one", "env:TOKEN"))
        assert not made.decide("one", allowed=False)
        assert not made.decide("other", allowed=True)

    run(test)
