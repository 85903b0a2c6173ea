"""What starts a command is recognised by whoever watches."""

from __future__ import annotations

import pytest

from cloister.runtimes import start_script


@pytest.mark.parametrize("before", ["", "read -r go <&8 || exit 125\n" * 100])
def test_what_starts_a_command_is_recognised_though_its_words_are_cut(before: str) -> None:
    rendered = start_script.start_argv(("npm", "ci"), pids=None, memory_bytes=None, before=before)
    assert start_script.is_start(tuple(word[:64] for word in rendered))
    assert not start_script.is_start(("/bin/sh", "-c", "echo", "sh"))
    assert not start_script.is_start(())
