"""The `__main__` of a worker."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


def replace_main(file: str) -> None:
    """Make `__main__` an empty module that says which file the user's `__main__` is from.

    The user's `__main__` is never imported in a worker: what a job needs of it goes by value. But
    `inspect` looks up the source of its classes by its file.

    Args:
        file: the absolute path of that file; empty if there is none.
    """
    main = ModuleType("__main__")
    if file:
        main.__file__ = file
        # With this name, processes that a job starts by multiprocessing do not run the file, either
        # (`_fixup_main_from_name` in Lib/multiprocessing/spawn.py).
        main.__spec__ = ModuleSpec("__main__", None, origin=file)
    # Functions have the second name if their program was itself started by multiprocessing.
    sys.modules["__main__"] = sys.modules["__mp_main__"] = main
