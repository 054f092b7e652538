"""Text for people: what a terminal may be shown, amounts, and errors in one line."""

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


def printable(text: str, *, keeps_newlines: bool = False) -> str:
    """Text that cannot make a terminal do anything: what jobs write and are called is up to them.

    Args:
        text: anything.
        keeps_newlines: whether "\\n" stays; it becomes a blank otherwise.

    Returns:
        The text with a blank for each unprintable blank (a tab, a carriage return) and U+FFFD for
        each other character that `str.isprintable` says no to. It is as long as before.
    """
    return "".join(
        letter if letter.isprintable() or (keeps_newlines and letter == "\n") else _instead(letter)
        for letter in text
    )


def _instead(letter: str) -> str:
    return " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"


def headline(error: BaseException) -> str:
    """An error's type and the first line of its text, whatever its `__str__` does.

    The pool's own errors may have more of a first line on the next, indented.
    """
    try:
        first, *rest = str(error).split("\n")
        if first.endswith((",", ";")) and rest and rest[0].startswith(" "):
            first += f" {rest[0].strip()}"
        text = printable(first)
    except Exception:  # noqa: BLE001 - the user's __str__
        text = "<str() raised>"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe(error: BaseException) -> str:
    """The error's type and text in one line, whatever its `__str__` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - the user's __str__
        return f"{type(error).__name__}: <str() raised>"
