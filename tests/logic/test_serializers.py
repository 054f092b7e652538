"""Objects arrive as they were, by pickle or by what the user has chosen."""

from __future__ import annotations

import functools
import os
import pickle
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilepool.wire.payloads import INLINE_LIMIT
from compilepool.wire.serializers import dump, dump_payload, load_payload


class Doubled:
    """A serializer that is none of pickle's."""

    def dumps(self, obj: object, /) -> bytes:
        return repr(obj).encode() * 2

    def loads(self, data: bytes, /) -> Any:
        assert data[: len(data) // 2] * 2 == data
        return data[: len(data) // 2].decode()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=100),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(PLAIN)
@settings(max_examples=50)
def test_plain_objects_arrive_equal(value: object) -> None:
    assert load_payload(dump_payload(value)) == value


@given(st.lists(st.binary(max_size=3000), max_size=5))
@settings(max_examples=50)
def test_out_of_band_buffers_arrive_equal_and_can_be_written_to(contents: list[bytes]) -> None:
    sent = [pickle.PickleBuffer(bytearray(content)) for content in contents]
    assert len(dump(sent)) == 1 + len(sent)
    received = load_payload(dump_payload(sent))
    assert [bytes(buffer) for buffer in received] == contents
    for buffer in received:
        assert not memoryview(buffer).readonly


@pytest.mark.parametrize("size", [0, INLINE_LIMIT, INLINE_LIMIT + 1, 1 << 20, (1 << 24) + 7])
def test_large_objects_arrive_equal(size: int) -> None:
    value = {"in band": os.urandom(size), "out of band": pickle.PickleBuffer(bytearray(size))}
    received = load_payload(dump_payload(value))
    assert received["in band"] == value["in band"]
    assert bytes(received["out of band"]) == bytes(size)


def test_what_pickle_cannot_do_goes_by_value() -> None:
    base = 40
    function = load_payload(dump_payload(lambda x: base + x))
    assert function(2) == 42


@functools.cache
def cached() -> int:
    return 1


def test_a_decorated_function_that_can_be_imported_goes_by_name() -> None:
    local = functools.cache(lambda: 2)
    arrived, same = load_payload(dump_payload((local, cached)))
    assert arrived() == 2
    assert same is cached


def test_what_cannot_be_pickled_at_all_says_why() -> None:
    with pytest.raises(TypeError, match="socket"), socket.socket() as unpicklable:
        dump(unpicklable)


def test_a_serializer_of_the_users_replaces_pickle() -> None:
    assert load_payload(dump_payload([1, "a"], Doubled()), Doubled()) == "[1, 'a']"


def test_a_serializer_that_returns_no_bytes_is_refused() -> None:
    class Broken(Doubled):
        def dumps(self, obj: object, /) -> bytes:
            return "text"  # type: ignore[return-value]

    with pytest.raises(TypeError, match="returned str, not bytes"):
        dump(1, Broken())
