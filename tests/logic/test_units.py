"""Amounts as users give them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilepool.text import bytes_of, size_text

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * GIB),
        (" 4 gib ", 4 * GIB),
        ("1.5GiB", 3 * GIB // 2),
        ("512MiB", GIB // 2),
        ("2TiB", 2048 * GIB),
        ("8GB", 8_000_000_000),
        ("8kB", 8000),
        ("100B", 100),
        (123, 123),
        (4e9, 4_000_000_000),
    ],
)
def test_sizes_are_understood(text: Any, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *("4 gigs", "", "GiB", "-4GiB", "4", "4G", "nan", "nanGiB", "4GiB8", "0GiB", "\u0664GiB"),
        *(0, -1, float("nan"), float("inf"), 0.5),
    ],
)
def test_nonsense_is_refused(text: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - who calls words it
        bytes_of(text)


@pytest.mark.parametrize("value", [None, True, b"4GiB", [4], object()])
def test_what_is_no_amount_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        bytes_of(value)


@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert bytes_of(text) > 0


@given(st.integers(1, 1 << 50))
def test_what_people_read_is_near_what_it_is(size: int) -> None:
    number, unit = size_text(size).split()
    if size > 1 << 20:
        assert bytes_of(number + unit) == pytest.approx(size, rel=0.06, abs=1 << 19)
