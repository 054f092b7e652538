"""Where libdw is, the library of elfutils that unwinds native stacks."""

from __future__ import annotations

import glob
import importlib.util
import os


def find_libdw() -> str:
    """The path or name of libdw to load: of the pystack package's own copy, else the system's.

    pystack is looked for, and not imported. Its wheels keep their libraries in a folder beside it.

    Returns:
        A path, or a name that the dynamic linker may find; nothing is loaded here.
    """
    try:
        spec = importlib.util.find_spec("pystack")
    except (ImportError, ValueError):  # something half loaded has that name
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        beside = os.path.join(os.path.dirname(folder), "pystack.libs", "libdw-*.so*")
        for path in sorted(glob.glob(beside)):
            return path
    return "libdw.so.1"
