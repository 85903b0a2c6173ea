"""Signals for a command that has entered a container: whom they reach. The sandbox is a pid namespace of unshare(1)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cloister.sandbox import registry
from cloister.session import entered

DEADLINE_S = 20.0


@contextmanager
def sandbox() -> Iterator[registry.Process]:
    """Its pid 1."""
    outer = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "sleep", "60"]
    )
    try:
        end = time.monotonic() + DEADLINE_S
        while not (found := registry.children(outer.pid)) or _command(found[0]) != "sleep":
            assert time.monotonic() < end and outer.poll() is None
        init = registry.identify(found[0])
        assert init is not None
        yield init
    finally:
        outer.kill()
        outer.wait()


@contextmanager
def enter(init: registry.Process, *command: str, **variables: str) -> Iterator[int]:
    """A command that has entered it, and is there."""
    process = subprocess.Popen(
        ["nsenter", "--target", str(init.pid), "--user", "--pid", "--preserve-credentials", *command],
        env={"PATH": os.environ["PATH"], **variables},
    )
    try:
        end = time.monotonic() + DEADLINE_S
        while not (found := registry.children(process.pid)) or _command(found[0]) != command[-2]:
            assert time.monotonic() < end and process.poll() is None
        yield found[0]
    finally:
        process.kill()
        process.wait()
        subprocess.run(["kill", "-KILL", *map(str, found)], check=False, capture_output=True)


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def ended(pid: int) -> bool:
    """Whether it ends in time."""
    end = time.monotonic() + DEADLINE_S
    while registry.identify(pid) is not None:
        if time.monotonic() > end:
            return False
    return True


pytestmark = pytest.mark.sandbox


def test_a_signal_reaches_the_command_of_that_mark_alone() -> None:
    with sandbox() as init:
        command = entered.Command(init)
        with enter(init, "sleep", "61", **{entered.VARIABLE: "of another"}) as other:
            assert not command.send(signal.SIGTERM), "it has not come yet"
            with enter(init, "sleep", "62", **{entered.VARIABLE: command.mark}) as mine:
                assert command.send(signal.SIGTERM)
                assert ended(mine)
            assert registry.identify(other) is not None
        assert registry.alive(init)


def test_a_command_without_an_environment_is_found_at_last() -> None:
    with sandbox() as init:
        command = entered.Command(init)
        with enter(init, "env", "-i", "sleep", "63") as mine:
            assert not command.send(signal.SIGTERM)
            command.leave_to(os.getpid())
            assert command.send(signal.SIGTERM)
            assert ended(mine)


def test_where_nothing_is_seen_the_client_gets_it() -> None:
    command = entered.Command(None)
    assert not command.can_be_seen
    assert not command.send(signal.SIGTERM)
    client = subprocess.Popen(["sleep", "64"])
    command.leave_to(client.pid)
    assert command.send(signal.SIGTERM)
    assert client.wait(DEADLINE_S) == -signal.SIGTERM


def test_a_process_outside_never_gets_one() -> None:
    """Whatever it has in its environment."""
    with sandbox() as init:
        command = entered.Command(init)
        outside = subprocess.Popen(
            ["sleep", "65"], env={entered.VARIABLE: command.mark, "PATH": os.environ["PATH"]}
        )
        try:
            assert not command.send(signal.SIGTERM)
            assert outside.poll() is None
        finally:
            outside.kill()
            outside.wait()


def test_where_nothing_is_seen_it_is_signalled_from_within() -> None:
    """Until it is there; then, if it never is, the engine's client gets it."""
    answers, asked = iter([False, True, False]), []

    def within(mark: str, number: int) -> bool:
        asked.append((mark, number))
        return next(answers)

    command = entered.Command(None, within)
    assert command.can_be_seen
    assert [command.send(signal.SIGTERM), command.send(signal.SIGTERM)] == [False, True]
    client = subprocess.Popen(["sleep", "60"])
    try:
        command.leave_to(client.pid)
        assert command.send(signal.SIGTERM)
        assert client.wait(DEADLINE_S) == -signal.SIGTERM
    finally:
        client.kill()
    assert asked == [(command.mark, signal.SIGTERM)] * 3
