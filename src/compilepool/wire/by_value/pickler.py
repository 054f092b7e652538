"""Pickles by value, with cloudpickle, such that code still says where its source is.

Only for who needs it, because it imports cloudpickle.
"""

from __future__ import annotations

import sys
from types import CodeType, FunctionType

import cloudpickle

from compilepool.light_typing import Any
from compilepool.wire.by_value.decorated import reducers
from compilepool.wire.by_value.sources import Source, code_of, find


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    """cloudpickle's pickler, which keeps the file name of code, and the source that is in no file.

    cloudpickle names the file of all code `<dynamic-code>` since 3.1.2, so that its output does not
    depend on where a notebook's cell happens to be (`_code_reduce` in cloudpickle/cloudpickle.py).
    Then a traceback has no lines, and `inspect.getsource` and Triton find nothing.

    Args:
        file: what it writes to.
        protocol: pickle's protocol.
        buffer_callback: called with each out-of-band buffer.
    """

    def __init__(self, file: Any, protocol: int, buffer_callback: Any) -> None:
        super().__init__(file, protocol=protocol, buffer_callback=buffer_callback)
        self._globals: dict[str, dict[str, Any]] = {}
        """Global variables of a function of each file."""
        self._found: dict[str, tuple[str, Source | None]] = {}
        """What `find` has found for each file."""
        self._sources: dict[tuple[str, str], Source] = {}
        """One object for each file and text, so that each text is in the stream once."""
        self._reducers = reducers()
        if (main := sys.modules.get("__mp_main__")) is not None:
            cloudpickle.register_pickle_by_value(main)

    def reducer_override(self, obj: Any) -> Any:
        """How `obj` is pickled; see `pickle.Pickler.reducer_override`."""
        kind = type(obj)
        if kind is CodeType:
            return self._reduce_code(obj)
        if kind is FunctionType:
            self._globals.setdefault(obj.__code__.co_filename, obj.__globals__)
        elif kind in self._reducers:
            return self._reducers[kind](obj)
        return super().reducer_override(obj)

    def _reduce_code(self, code: CodeType) -> tuple[Any, ...]:
        name = code.co_filename
        if name in self._found:
            file, source = self._found[name]
        else:
            file, source = find(code, self._globals.get(name))
            if source is not None:
                source = self._sources.setdefault((file, source.text), source)
            if not name.startswith("<") or (source is not None and source.is_of_name):
                self._found[name] = file, source  # other code named "<string>" has other source
        parts = (
            code.co_argcount,
            code.co_posonlyargcount,
            code.co_kwonlyargcount,
            code.co_nlocals,
            code.co_stacksize,
            code.co_flags,
            code.co_code,
            code.co_consts,
            code.co_names,
            code.co_varnames,
            file,
            code.co_name,
            code.co_qualname,
            code.co_firstlineno,
            code.co_linetable,
            code.co_exceptiontable,
            code.co_freevars,
            code.co_cellvars,
        )
        return (CodeType, parts) if source is None else (code_of, (source, *parts))
