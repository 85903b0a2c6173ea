"""cloister.lean behaves as the standard library does, and a start loads none of what it stands in for."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import lean

# What the whole way of `run` loads; `live` brings in the runtime and all that the sandbox is made of.
START = "cloister.cli.run, cloister.session.live, cloister.session.prepare, cloister.session.cleanup"
STOOD_IN_FOR = {
    "collections",
    "contextlib",
    "enum",
    "functools",
    "json",
    "re",
    "selectors",
    "signal",
    "socket",
}

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
NO_JSON = ["", " ", "{", "[1,]", "{'a': 1}", "nul", "1 2", "[1]]", '"\n"', '{"a":1}x', "\ufeff1", "01", "+1"]


@given(VALUES)
def test_what_is_written_is_what_json_writes(value: Any) -> None:
    assert lean.json.dumps(value) == json.dumps(value)
    assert lean.json.dumps(value, separators=(",", ":")) == json.dumps(value, separators=(",", ":"))
    assert lean.json.dumps(value, sort_keys=True) == json.dumps(value, sort_keys=True)
    assert lean.json.loads(f" {json.dumps(value)}\n") == value
    assert lean.json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


@pytest.mark.parametrize("text", NO_JSON)
def test_what_json_refuses_is_a_value_error(text: str) -> None:
    for module in (json, lean.json):
        with pytest.raises(ValueError):
            module.loads(text)


def test_what_json_takes_beyond_the_standard() -> None:
    assert lean.json.loads("[Infinity, -Infinity]") == [math.inf, -math.inf]
    assert math.isnan(lean.json.loads("NaN"))
    assert lean.json.loads(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize("value", [object(), {"a": b"bytes"}, {(1, 2): 3}, {1, 2}])
def test_what_is_no_json_is_a_type_error(value: object) -> None:
    for module in (json, lean.json):
        with pytest.raises(TypeError):
            module.dumps(value)


def test_a_circle_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ValueError):
        lean.json.dumps(circle)


def fail(name: str, *, error: type[Exception]) -> None:
    raise error(name)


@pytest.fixture(params=[lean, contextlib], ids=["lean", "contextlib"])
def module(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_only_what_is_named_is_suppressed(module: Any) -> None:
    with module.suppress(FileNotFoundError, KeyError):
        fail("suppressed", error=KeyError)
    with module.suppress():
        pass
    with pytest.raises(PermissionError), module.suppress(FileNotFoundError):
        fail("not suppressed", error=PermissionError)


def test_a_stack_calls_all_in_reverse_whatever_is_raised(module: Any) -> None:
    called: list[str] = []

    with pytest.raises(KeyError) as caught, module.ExitStack() as stack:
        stack.callback(called.append, "last")
        stack.callback(fail, "second", error=KeyError)
        stack.callback(called.append, "between")
        stack.callback(fail, "first", error=ValueError)
        raise OSError("body")
    assert called == ["between", "last"]
    assert isinstance(caught.value.__context__, ValueError)
    assert isinstance(caught.value.__context__.__context__, OSError)


def test_a_generator_becomes_a_context_manager(module: Any) -> None:
    seen: list[str] = []

    @module.contextmanager  # type: ignore[untyped-decorator]  # either module's
    def held(name: str, *, forgive: bool = False) -> Iterator[str]:
        """Its docstring stays."""
        seen.append(f"take {name}")
        try:
            yield name.upper()
        except KeyError:
            if not forgive:
                raise
        finally:
            seen.append(f"let go of {name}")

    assert (held.__name__, held.__doc__) == ("held", "Its docstring stays.")
    with held("a") as value:
        assert value == "A"
    with pytest.raises(KeyError), held("b"):
        fail("b", error=KeyError)
    with held("c", forgive=True):
        fail("c", error=KeyError)
    with pytest.raises(StopIteration), held("d"):
        fail("d", error=StopIteration)
    assert seen == [f"{what} {name}" for name in "abcd" for what in ("take", "let go of")]


def test_a_generator_that_goes_on_is_an_error(module: Any) -> None:
    @module.contextmanager  # type: ignore[untyped-decorator]  # either module's
    def twice() -> Iterator[None]:
        with contextlib.suppress(ValueError):
            yield
        yield

    with pytest.raises(RuntimeError), twice():
        pass
    with pytest.raises(RuntimeError), twice():
        fail("again", error=ValueError)


def test_descriptors_pass_and_sockets_close() -> None:
    """Either module's sockets pass descriptors to the other's."""
    for sender, receiver in ((lean.socket, socket), (socket, lean.socket)):
        ours, theirs = sender.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        with ours, theirs:
            sender.send_fds(ours, [b"two"], [reading, writing])
            text, (reading_too, writing_too), _, _ = receiver.recv_fds(theirs, 10, 2)
        assert (text, ours.fileno(), theirs.fileno()) == (b"two", -1, -1)
        os.write(writing_too, b"through")
        assert os.read(reading_too, 10) == b"through"
        for descriptor in (reading, writing, reading_too, writing_too):
            os.close(descriptor)


def test_a_start_loads_none_of_what_it_stands_in_for() -> None:
    program = (
        f"import sys; before = set(sys.modules)\nimport {START}\nprint(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "cloister.runtimes.embedded" in loaded
    assert not STOOD_IN_FOR & set(loaded)


@pytest.mark.parametrize("missing", ["_json", "_socket", "_signal"])
def test_an_interpreter_without_one_gets_the_standard_librarys(missing: str) -> None:
    program = (
        f"import sys, json, socket, signal\nsys.modules[{missing!r}] = None\nfrom cloister import lean\n"
        "print(lean.json.loads(lean.json.dumps([1])), lean.socket.AF_UNIX, lean.signal.SIGKILL + 0)\n"
        "print(lean.json is json, lean.socket is socket, lean.signal is signal)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    values, same = said.splitlines()
    assert values.startswith("[1] ")
    assert same.split() == [str(missing == f"_{name}") for name in ("json", "socket", "signal")]
