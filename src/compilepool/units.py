"""Amounts as users give them."""

from __future__ import annotations

import math
import re

_SIZE = r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b\s*"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

_MOST = 1 << 63

EXPECTED_SIZE = "a number of bytes, or text such as '512MiB' or '4GiB'"


def bytes_of(value: object) -> int:
    """The bytes that an amount of memory is.

    Args:
        value: bytes, or text: a number and a unit, of 1024 (KiB, MiB, GiB, TiB) or 1000 (kB, MB,
            GB, TB).

    Raises:
        TypeError: it is neither a number nor text.
        ValueError: it is nothing greater than 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if isinstance(value, str):
        found = re.fullmatch(_SIZE, value, re.IGNORECASE | re.ASCII)
        if not found:
            raise ValueError
        unit = (found[2] or "").lower()
        amount = float(found[1]) * (1024 if unit.endswith("i") else 1000) ** _POWERS[unit[:1]]
    else:
        if value > _MOST:
            raise ValueError
        amount = value
    if not math.isfinite(amount) or amount < 1:
        raise ValueError
    return int(amount)


def size_text(size: float) -> str:
    """An amount of memory, for people."""
    if size >= 1 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size / (1 << 20):.0f} MiB" if size >= 1 << 20 else f"{size / 1024:.0f} KiB"
