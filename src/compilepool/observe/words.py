"""Words for what is shown and logged."""

from __future__ import annotations

from compilepool.wire.text import printable


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
