"""What this process is to `multiprocessing`, which is not imported to find out.

A program that has not imported it has no key either: it draws one when it is imported.
"""

from __future__ import annotations

import sys

from compilepool.light_typing import Any

_BEING_IMPORTED = (AttributeError, NameError)
"""What a module raises that another thread is importing just now, the pool's reader for example."""


def own_authkey() -> str:
    """The key by which processes of this program trust each other, in hexadecimal digits.

    Returns:
        The empty string while `multiprocessing` is not imported.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    try:
        return "" if process is None else bytes(process.current_process().authkey).hex()
    except _BEING_IMPORTED:
        return ""


def own_name() -> str:
    """The name of this process in `multiprocessing`."""
    process: Any = sys.modules.get("multiprocessing.process")
    try:
        return "MainProcess" if process is None else str(process.current_process().name)
    except _BEING_IMPORTED:
        return "MainProcess"


def own_start_method() -> str:
    """The start method that the program has set in `multiprocessing`; empty if none."""
    context: Any = sys.modules.get("multiprocessing.context")
    # `get_start_method` would set the default for good, if none is set.
    actual = getattr(getattr(context, "_default_context", None), "_actual_context", None)
    return str(getattr(actual, "_name", None) or "")
