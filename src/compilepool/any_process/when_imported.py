"""`WhenImported`: calls a function after the import of a module, which may never happen.

Its classes are finders and loaders by their methods alone: `importlib.abc` imports `typing`, which
takes long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from compilepool.light_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class WhenImported:
    """Waits for the import of a module, then calls a function with it, once.

    Args:
        name: the full name of the module, which is not imported yet.
        call: the function. The thread that imports the module calls it, before any other thread
            gets the module.
    """

    def __init__(self, name: str, call: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._call: Callable[[ModuleType], None] | None = call
        sys.meta_path.insert(0, self)

    def cancel(self) -> None:
        """Do not call, even if the module is being imported now."""
        self._call = None
        # A new list: another thread may iterate over the old one.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec, with a loader that calls the function; None: another module."""
        if fullname != self._name or self not in sys.meta_path:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = (
                None if find_spec is None else find_spec(fullname, path, target)
            )
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _CallingLoader(spec.loader, self._loaded)  # type: ignore[assignment] # see above
                return spec
        return None

    def _loaded(self, module: ModuleType) -> None:
        call = self._call
        self.cancel()
        if call is not None:
            call(module)


class _CallingLoader:
    """Calls a function after it has loaded a module; otherwise it acts as the loader it wraps."""

    def __init__(self, loader: Any, call: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Implements `Loader.create_module`."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Implements `Loader.exec_module`, and calls the function."""
        # The module must show its real loader, to its own code, too.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._call(module)
