"""Named tuples of `light_typing` do what those of `typing` do."""

from __future__ import annotations

import copy
import pickle
import typing
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool import light_typing


class Light(light_typing.NamedTuple):
    """Three fields, one with a default."""

    first: int
    second: str
    third: float = 0.5

    @property
    def both(self) -> str:
        return f"{self.first}{self.second}"


class Typed(typing.NamedTuple):
    """Three fields, one with a default."""

    first: int
    second: str
    third: float = 0.5

    @property
    def both(self) -> str:
        return f"{self.first}{self.second}"


class Nothing(light_typing.NamedTuple):
    """No fields."""


values = st.tuples(st.integers(), st.text(), st.floats(allow_nan=False))


@given(values, st.integers())
def test_they_behave_alike(fields: tuple[int, str, float], other: int) -> None:
    light, typed = Light(*fields), Typed(*fields)
    assert light == fields
    assert hash(light) == hash(typed)
    assert repr(light).replace("Light", "Typed") == repr(typed)
    assert light.both == typed.both
    assert light._asdict() == typed._asdict()
    assert light._replace(first=other) == tuple(typed._replace(first=other))
    assert type(light._replace(first=other)) is Light
    assert Light._make(iter(fields)) == light
    assert Light(second=fields[1], first=fields[0]) == (*fields[:2], 0.5)
    for again in (pickle.loads(pickle.dumps(light)), copy.copy(light), copy.deepcopy(light)):
        assert again == light
        assert type(again) is Light


def test_they_look_alike() -> None:
    for name in ("_fields", "_field_defaults", "__match_args__", "__slots__", "__doc__"):
        assert getattr(Light, name) == getattr(Typed, name)
    assert typing.get_type_hints(Light) == typing.get_type_hints(Typed)
    assert Nothing() == ()
    assert Nothing._fields == ()
    match Light(1, "2"):
        case Light(first, second=second):
            assert (first, second) == (1, "2")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda kind: kind(1),
        lambda kind: kind(1, "2", 3.0, 4),
        lambda kind: kind(1, "2", fourth=4),
        lambda kind: kind._make([1, "2"]),
        lambda kind: kind(1, "2")._replace(fourth=4),
    ],
)
def test_they_refuse_alike(wrong: Callable[[Any], object]) -> None:
    for kind in (Light, Typed):
        with pytest.raises((TypeError, ValueError)) as caught:
            wrong(kind)
        assert caught.value.args
    with pytest.raises(AttributeError):
        Light(1, "2").first = 3  # type: ignore[misc] # that is the test
