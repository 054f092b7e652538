"""Calls back when a module has been imported, which may be long from now, or never."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


class WhenImported(importlib.abc.MetaPathFinder):
    """Until it has been imported, or `cancel`.

    Args:
        name: the full name of the module, not imported yet.
        call: what is called with it, in the thread that imports it, before anybody else has it.
    """

    def __init__(self, name: str, call: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._call: Callable[[ModuleType], None] | None = call
        sys.meta_path.insert(0, self)

    def cancel(self) -> None:
        """Do not call, also if the module is being imported just now."""
        self._call = None
        # Not in place: another thread may be at it.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of the module, with a loader that calls; None for any other."""
        if fullname != self._name or self not in sys.meta_path:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            find_spec = getattr(finder, "find_spec", None)
            spec: importlib.machinery.ModuleSpec | None = (
                None if find_spec is None else find_spec(fullname, path, target)
            )
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _CallingLoader(spec.loader, self._loaded)
                return spec
        return None

    def _loaded(self, module: ModuleType) -> None:
        call = self._call
        self.cancel()
        if call is not None:
            call(module)


class _CallingLoader(importlib.abc.Loader):
    """A loader that calls when it has loaded a module; otherwise as `loader`, in everything."""

    def __init__(self, loader: Any, call: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """As `loader` does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """As `loader` does, and call."""
        # Everybody shall find the loader there that they would find without us.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._call(module)
