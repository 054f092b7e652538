"""How a jitted function travels to a worker: by its name, or else by value."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from compilepool.light_typing import Any, NamedTuple


class ImportableFunction(NamedTuple):
    """A function that a worker imports. So its callees have their caches, too."""

    module: str
    qualname: str

    def load(self) -> Any:
        """The function, in a worker."""
        found: Any = importlib.import_module(self.module)
        for part in self.qualname.split("."):
            found = getattr(found, part)
        return found


class FunctionByValue(NamedTuple):
    """A function of a script or a notebook, or a closure. A worker decorates it anew."""

    dispatcher: type
    function: Callable[..., Any]
    locals: dict[str, Any]
    options: dict[str, Any]

    def load(self) -> Any:
        """The function, in a worker."""
        dispatcher = self.dispatcher(self.function, self.locals, self.options)
        dispatcher.enable_caching()
        return dispatcher


def portable(dispatcher: Any) -> ImportableFunction | FunctionByValue:
    """What to send for a function.

    Numba's own pickle would send the function by value always, without its cache.
    """
    by_name = ImportableFunction(dispatcher.__module__, dispatcher.__qualname__)
    if dispatcher.__module__ in sys.modules and dispatcher.__module__ != "__main__":
        try:
            if by_name.load() is dispatcher:
                return by_name
        except AttributeError:
            pass  # a closure, or a name that is used twice
    return FunctionByValue(
        type(dispatcher), dispatcher.py_func, dispatcher.locals, dispatcher.targetoptions
    )
