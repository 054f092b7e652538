"""Which kernels' jobs share a run: those that differ by nothing but the index of the device."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.integrations.torch.flight import Flight, cut_at_index, flight_of
from tests.kernel_sources import double, sine

INDICES = st.none() | st.integers(0, 10**6)
KERNELS = st.sampled_from([("sine", sine), ("double", double)])
ENV = {"TORCHINDUCTOR_CACHE_DIR": "/cache", "TRITON_LIBDEVICE_PATH": "/libdevice"}
CONFIG = {"use_static_triton_launcher": True}


def _load_triton_kernel_from_source(*_args: object, **_kwargs: object) -> None:
    """Stands for the function of this name in torch's codecache, which is never called here."""


_load_triton_kernel_from_source.__module__ = "torch._inductor.codecache"
load = _load_triton_kernel_from_source


def flight(
    source: str,
    name: str = "sine",
    *,
    env: dict[str, Any] = ENV,
    config: dict[str, Any] = CONFIG,
    has_cuda: bool = True,
) -> Flight | None:
    return flight_of(has_cuda, (functools.partial(load, name, source), env, config), {})


def key(*args: Any, **kwargs: Any) -> str:
    found = flight(*args, **kwargs)
    assert found is not None
    return found.key


@given(KERNELS, INDICES, INDICES)
def test_a_source_is_cut_where_it_has_the_index_and_nowhere_else(
    kernel: tuple[str, Callable[[int | None], str]], index: int | None, other: int | None
) -> None:
    name, source = kernel
    cut = cut_at_index(name, source(index))
    assert cut is not None
    assert cut.device == index
    assert cut.for_device(index) == source(index)
    assert cut.for_device(other) == source(other)


@given(KERNELS, st.lists(st.integers(0, 63), min_size=2, unique=True))
def test_all_ranks_have_one_key(
    kernel: tuple[str, Callable[[int | None], str]], ranks: list[int]
) -> None:
    name, source = kernel
    assert len({key(source(rank), name) for rank in ranks}) == 1
    assert key(source(None), name) not in {key(source(rank), name) for rank in ranks}


@given(st.data())
def test_any_other_change_of_the_source_gives_another_key(data: st.DataObject) -> None:
    source = sine(3)
    at = data.draw(st.integers(0, len(source) - 1))
    char = data.draw(st.characters(codec="utf-8").filter(lambda char: char != source[at]))
    changed = source[:at] + char + source[at + 1 :]
    found = flight(changed)
    if found is not None and found.key == key(source):
        cut = cut_at_index("sine", source)
        assert cut is not None
        assert at == len(cut.before)
        assert found.source.device == int(char)


@pytest.mark.parametrize(
    "changed",
    [
        {"env": {**ENV, "TORCHINDUCTOR_CACHE_DIR": "/other"}},
        {"env": {**ENV, "TRITON_CACHE_DIR": "/triton"}},
        {"env": {**ENV, "TRITON_CACHE_DIR": "/cache/triton/4"}},
        {"env": {"TRITON_LIBDEVICE_PATH": "/libdevice"}},
        {"env": {**ENV, "TRITON_LIBDEVICE_PATH": "/other"}},
        {"config": {"use_static_triton_launcher": False}},
        {"config": {**CONFIG, "autotune_lookup_table": {"hash": {"XBLOCK": 8}}}},
        {"has_cuda": False},
    ],
)
def test_what_else_decides_the_result_is_in_the_key(changed: dict[str, Any]) -> None:
    assert key(sine(3), **changed) != key(sine(3))
    assert key(sine(3), **changed) != key(sine(4))


def test_the_folder_that_torch_would_choose_for_the_device_is_no_difference() -> None:
    keys = {
        key(sine(3)),
        key(sine(3), env={**ENV, "TRITON_CACHE_DIR": "/cache/triton/3"}),
        key(sine(3), env={"TRITON_CACHE_DIR": None, **ENV}),  # as torch 2.14 says that it is unset
        key(sine(4), env={**ENV, "TRITON_CACHE_DIR": "/cache/triton/4"}),
    }
    assert len(keys) == 1


def test_the_order_of_dictionaries_is_no_difference() -> None:
    table = {"autotune_lookup_table": {"a": {"XBLOCK": 8, "num_warps": 4}, "b": {}}}
    other = {"autotune_lookup_table": {"b": {}, "a": {"num_warps": 4, "XBLOCK": 8}}}
    env = dict(reversed(ENV.items()))
    assert key(sine(), config=table) == key(sine(), env=env, config=other)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, "", "1", "'"]),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.lists(inner, max_size=2).map(tuple)
            | st.dictionaries(st.sampled_from([1, "1", True]), inner, max_size=2)
        ),
        max_leaves=4,
    ),
    st.data(),
)
def test_values_of_the_configuration_are_told_apart(value: Any, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([value, [value], (value,), {"1": value}, str(value), None]))
    same = repr(other) == repr(value)
    assert (key(sine(), config={"a": value}) == key(sine(), config={"a": other})) == same


SINE = functools.partial(load, "sine", sine())


@pytest.mark.parametrize(
    "args",
    [
        (),
        (SINE, ENV),
        (SINE, ENV, CONFIG, "address of a stream"),
        (load, ENV, CONFIG),
        (functools.partial(load, "sine", source_code=sine()), ENV, CONFIG),
        (functools.partial(load, "sine", sine(), "more"), ENV, CONFIG),
        (functools.partial(load, "sine", sine().encode()), ENV, CONFIG),
        (functools.partial(print, "sine", sine()), ENV, CONFIG),
        (functools.partial(load, "cosine", sine()), ENV, CONFIG),
        (SINE, None, CONFIG),
        (SINE, [*ENV], CONFIG),
        (SINE, types.MappingProxyType(ENV), CONFIG),
        (SINE, ENV, {"use_static_triton_launcher": object()}),
    ],
)
def test_a_call_of_an_unknown_shape_has_no_flight(args: tuple[Any, ...]) -> None:
    assert flight_of(True, args, {}) is None


def test_a_call_with_keywords_has_no_flight() -> None:
    assert flight_of(True, (SINE, ENV), {"extra_config": CONFIG}) is None


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        ("index=0, ", ""),
        ("index=0, ", "index=-1, "),
        ("index=0, ", "index=True, "),
        ("index=0, ", "index='0', "),
        ("index=0, ", "index=rank, "),
        ("index=0, ", "index=0, **more, "),
        ("type='cuda', index=0, ", "'cuda', 0, "),
        ("index=0, ", "index=0,\r"),
        ("DeviceProperties(type", "Properties(type"),
        ("'device': ", "'device': None, 'device': "),
        ("'device': ", "'gpu': "),
        ("triton_meta=", "meta="),
        ("@triton_heuristics.pointwise", "@heuristics.pointwise"),
        ("@triton.jit", "@triton_heuristics.pointwise()\n@triton.jit"),
        ("@triton.jit\n", "@triton.jit\nclass sine: ...\n"),
        ("@triton.jit\n", "'''\ndef sine(): ...\n'''\n@triton.jit\n"),
        ("import triton\n", "import\n"),
        ("import triton\n", "import triton\0\n"),
    ],
)
def test_a_source_of_an_unknown_shape_has_no_flight(there: str, instead: str) -> None:
    source = sine().replace(there, instead)
    assert source != sine()
    assert flight(source) is None
