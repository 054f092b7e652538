"""How decorated functions go by value: kernels of Triton, and those with a cache or a dispatch.

pickle refuses them, because they have locks or weak references, or refers to them by name, which
fails for those of `__main__`. The receiver decorates the function anew.
"""

from __future__ import annotations

import functools
import sys
import weakref
from collections.abc import Callable

from compilepool.light_typing import Any, TypeAlias

Reduced: TypeAlias = str | tuple[Any, ...]

_KERNELS = (
    ("triton.runtime.jit", "JITFunction"),
    ("triton.experimental.gluon._runtime", "GluonJITFunction"),
)


def reducers() -> dict[type, Callable[[Any], Reduced]]:
    """How an object of each type is pickled, for `pickle.Pickler.reducer_override`.

    If the object can be imported, that is its name.
    """
    return _reducers_with(*(_kernel_type(module, name) for module, name in _KERNELS))


@functools.cache
def _reducers_with(*kernels: type | None) -> dict[type, Callable[[Any], Reduced]]:
    return {
        functools._lru_cache_wrapper: _reduce_cached,
        functools.cached_property: _reduce_cached_property,
        weakref.WeakKeyDictionary: _reduce_weak_dictionary,
        **{kernel: _reduce_kernel for kernel in kernels if kernel is not None},
    }


def _kernel_type(module: str, name: str) -> type | None:
    """The type of a kernel; None if this process has none, because it has not loaded the module."""
    return getattr(sys.modules.get(module), name, None)


def _reduce_kernel(kernel: Any) -> Reduced:
    options = (  # triton/runtime/jit.py, JITFunction.__init__
        kernel.version,
        kernel.do_not_specialize,
        kernel.do_not_specialize_on_alignment,
        kernel.debug,
        kernel.noinline,
        kernel._repr,
        kernel.launch_metadata,
    )
    return _name_of(kernel) or (type(kernel), (kernel.fn, *options))


def _reduce_cached(function: Any) -> Reduced:
    parameters = function.cache_parameters()
    parts = function.__wrapped__, parameters["maxsize"], parameters["typed"]
    return _name_of(function) or (_cached, parts)


def _cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _reduce_cached_property(attribute: Any) -> Reduced:
    return _cached_property, (attribute.func, attribute.attrname)  # it has a lock in Python 3.11


def _cached_property(function: Callable[[Any], Any], name: str | None) -> Any:
    attribute = functools.cached_property(function)
    attribute.attrname = name
    return attribute


def _reduce_weak_dictionary(dictionary: Any) -> Reduced:
    """By type, as functions of `singledispatch` have it. Other keys would die on their way."""
    content = dict(dictionary)
    is_by_type = all(isinstance(key, type) for key in content)
    return (weakref.WeakKeyDictionary, (content,)) if is_by_type else NotImplemented


def _name_of(function: Any) -> str:
    """The name by which another process can import `function`; empty if it cannot."""
    name: str = getattr(function, "__qualname__", "")  # that of a `functools.partial` has none
    found = None if function.__module__ == "__main__" else sys.modules.get(function.__module__)
    for part in name.split("."):
        found = getattr(found, part, None)
    return name if found is function else ""
