"""Text for people: printable text, amounts of memory, errors and ends of processes in one line."""

from __future__ import annotations

import math
import re
import signal

_SIZE = r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b\s*"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

_LARGEST_NUMBER = 1 << 63

EXPECTED_SIZE = "a number of bytes, or text such as '512MiB' or '4GiB'"
"""What `bytes_of` accepts, in words, for error messages."""


def bytes_of(value: object) -> int:
    """Convert an amount of memory to bytes.

    Args:
        value: a number of bytes, or text: a number and a unit of 1024 (KiB, MiB, GiB, TiB) or 1000
            (kB, MB, GB, TB).

    Returns:
        The number of bytes, rounded down.

    Raises:
        TypeError: `value` is neither a number nor text.
        ValueError: `value` is not an amount of at least 1 byte, or is too large.
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
        if value > _LARGEST_NUMBER:
            raise ValueError
        amount = value
    if not math.isfinite(amount) or amount < 1:
        raise ValueError
    return int(amount)


def size_text(size: float) -> str:
    """An amount of memory as text, such as "512 MiB".

    Args:
        size: the number of bytes.
    """
    if size >= 1 << 30:
        return f"{size / (1 << 30):.1f} GiB"
    return f"{size / (1 << 20):.0f} MiB" if size >= 1 << 20 else f"{size / 1024:.0f} KiB"


def printable(text: str, *, keeps_newlines: bool = False) -> str:
    """Make text safe to write to a terminal: jobs choose their output and their names.

    Args:
        text: any text.
        keeps_newlines: whether "\\n" stays. Otherwise it becomes a blank.

    Returns:
        The text with a blank for each unprintable white-space character (such as a tab), and U+FFFD
        for each other character that `str.isprintable` rejects. Its length is that of `text`.
    """
    return "".join(
        character
        if character.isprintable() or (keeps_newlines and character == "\n")
        else _replacement(character)
        for character in text
    )


def _replacement(character: str) -> str:
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"


def headline(error: BaseException) -> str:
    """The type of an error and the first line of its text, whatever its `__str__` does.

    In an error of the pool, the first line may continue on the next one, which is then indented.
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
    """The type and the text of an error, whatever its `__str__` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - the user's __str__
        return f"{type(error).__name__}: <str() raised>"


def full_text(error: BaseException) -> str:
    """The type and the text of an error, after the traceback of the job that raised it, if any."""
    try:
        cause = getattr(error.__cause__, "text", "")  # of a RemoteTraceback
        return str(cause) or describe(error)
    except Exception:  # noqa: BLE001 - the user's classes
        return describe(error)


def died(exitcode: int | None) -> str:
    """What an exit code says about the end of a process, as the predicate of a sentence.

    Args:
        exitcode: negated signal number if a signal killed the process; None if nobody knows.
    """
    if exitcode is None:
        return "died, and nobody knows how"
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    return f"was killed by {signal_name(-exitcode)}"


def signal_name(number: int) -> str:
    """A signal as "SIGSEGV (Segmentation fault)"."""
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:  # a real-time signal
        return f"signal {number}"


def name_of_end(number: int | None, exitcode: int | None) -> str:
    """The end of a process as a noun: "SIGSEGV", "exit code 7".

    Args:
        number: the number of the signal that killed it; None if no signal did.
        exitcode: the exit code; None if a signal killed it.
    """
    if number is None:
        return "crashed" if exitcode is None else f"exit code {exitcode}"
    return signal_name(number).partition(" (")[0]
