"""Demangles the names of C++ functions."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from compilepool.linux.process import memory_limit
from compilepool.wire.native_report import MAX_TEXT

_LONGEST = 16 * 1024
"""The most bytes of a mangled name that is demangled."""

_ROOM = 64 * 1024 * 1024
"""The bytes of memory for demangling one name, because the result can be exponentially longer."""


@functools.cache
def readable_name(symbol: bytes) -> str:
    """The name of a symbol, demangled if possible, and cut to `MAX_TEXT` characters."""
    name = symbol
    if symbol.startswith(b"_Z") and len(symbol) <= _LONGEST:
        name = _demangled(symbol)
    return name[: 4 * MAX_TEXT].decode(errors="replace")[:MAX_TEXT]


def _demangled(symbol: bytes) -> bytes:
    demangle = _demangler()
    if demangle is None:
        return symbol
    status, length = ctypes.c_int(), ctypes.c_size_t()
    with memory_limit(_ROOM):
        address = demangle(symbol, None, ctypes.byref(length), ctypes.byref(status))
    if not address:
        return symbol
    try:
        return ctypes.string_at(address, min(length.value, 4 * MAX_TEXT)).partition(b"\0")[0]
    finally:
        ctypes.CDLL(None).free(ctypes.c_void_p(address))


@functools.cache
def _demangler() -> Any:
    try:
        function = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_void_p
    return function
