"""How a process ended, in words."""

from __future__ import annotations

import signal


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
