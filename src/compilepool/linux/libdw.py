"""Finds libdw, the library of elfutils that unwinds native stacks. The client calls it."""

from __future__ import annotations

import glob
import importlib.util
import os


def find_libdw() -> str:
    """The libdw to load: the copy in the pystack package if there is one, else the system's.

    It finds pystack without importing it. The wheels of pystack keep their libraries in a folder
    beside the package.

    Returns:
        A path, or a name for the dynamic linker. Nothing is loaded here.
    """
    try:
        spec = importlib.util.find_spec("pystack")
    except (ImportError, ValueError):  # a module of that name is only partly loaded
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        beside = os.path.join(os.path.dirname(folder), "pystack.libs", "libdw-*.so*")
        for path in sorted(glob.glob(beside)):
            return path
    return "libdw.so.1"
