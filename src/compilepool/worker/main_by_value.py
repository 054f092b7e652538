"""Lets jobs give functions and classes of the user's script to processes that they start.

`__main__` is an empty module in a worker. So `multiprocessing` could not refer to what a job has of
the script, and a child that it starts would not find it there.
"""

from __future__ import annotations

import io
import pickle
import sys
import types

from compilepool.light_typing import Any

_SCRIPTS = ("__main__", "__mp_main__")
"""The script's module. It has the second name in a program that `multiprocessing` has started."""


def send_main_by_value() -> None:
    """Have `multiprocessing`, which is imported, pickle by value what is of the script."""
    reduction: Any = sys.modules["multiprocessing.reduction"]
    reduction.ForkingPickler.reducer_override = _reduce


def load(data: bytes) -> Any:
    """In a process that a job has started: what `_reduce` was given.

    What this process sends back may be of the script, too.
    """
    send_main_by_value()
    return pickle.loads(data)


def _reduce(_pickler: Any, obj: Any) -> Any:
    """Implements `pickle.Pickler.reducer_override`."""
    is_named = isinstance(obj, type | types.FunctionType)
    if not is_named or obj.__module__ not in _SCRIPTS:
        return NotImplemented
    from compilepool.wire.by_value.pickler import ByValuePickler

    file = io.BytesIO()
    ByValuePickler(file, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=None).dump(obj)
    return load, (file.getvalue(),)
