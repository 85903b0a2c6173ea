"""cloister.values behaves as dataclasses does, case by case."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

import cloister.values


def pair(module: Any) -> tuple[Any, Any]:
    @module.dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 2

        def sum(self) -> int:
            return self.x + self.y

    @module.dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        text: str
        seen: list[int] = module.field(default_factory=list)

    return Point, Named


OURS, STANDARD = pair(cloister.values), pair(dataclasses)


@pytest.fixture(params=[OURS, STANDARD], ids=["values", "dataclasses"])
def classes(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    found: tuple[Any, Any] = request.param
    return found


def test_construction_and_defaults(classes: tuple[Any, Any]) -> None:
    point, named = classes
    assert (point(1).x, point(1).y, point(1, y=5).y, point(x=3).sum()) == (1, 2, 5, 5)
    one, two = named(text="a"), named(text="a")
    one.seen.append(1)
    assert two.seen == []


@pytest.mark.parametrize("arguments", [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})])
def test_wrong_arguments(classes: tuple[Any, Any], arguments: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError):
        classes[0](*arguments[0], **arguments[1])


def test_keyword_only(classes: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError):
        classes[1]("a")


def test_frozen_with_slots(classes: tuple[Any, Any]) -> None:
    value = classes[0](1)
    for name in ("x", "other"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(value, name, 2)
    with pytest.raises((AttributeError, TypeError)):
        del value.x
    assert not hasattr(value, "__dict__")


def test_equality_hash_and_repr(classes: tuple[Any, Any]) -> None:
    point, named = classes
    assert point(1) == point(1, 2) != point(2)
    assert point(1) != (1, 2)
    assert len({point(1), point(1), point(2)}) == 2
    assert repr(point(1)).endswith("Point(x=1, y=2)")
    assert named(text="a") == named(text="a")


def test_patterns(classes: tuple[Any, Any]) -> None:
    point, _ = classes
    match point(1, 7):
        case point(x, y):
            assert (x, y) == (1, 7)
        case _:
            pytest.fail("no match")


def test_replace_and_copy() -> None:
    for module, (point, _) in ((cloister.values, OURS), (dataclasses, STANDARD)):
        assert module.replace(point(1), y=9) == point(1, 9)
        with pytest.raises(TypeError):
            module.replace(point(1), z=9)
        assert copy.copy(point(1)) == point(1)


@cloister.values.dataclass(frozen=True, slots=True)
class Pickled:
    """At module level, where pickle finds it."""

    x: int


def test_pickle() -> None:
    assert pickle.loads(pickle.dumps(Pickled(4))) == Pickled(4)


def test_what_it_does_not_do_is_refused() -> None:
    with pytest.raises(TypeError):
        cloister.values.dataclass(frozen=False, slots=True)
