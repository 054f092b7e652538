"""Text that a terminal may be shown."""

from __future__ import annotations


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
