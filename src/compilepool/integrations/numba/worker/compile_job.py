"""The jobs: compile one function for one signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compilepool.integrations.numba.cache_entry import CacheEntry
from compilepool.integrations.numba.functions import FunctionByValue, ImportableFunction
from compilepool.integrations.numba.worker.be_a_worker import be_a_worker
from compilepool.light_typing import Any


def compile_into_cache(
    function: ImportableFunction | FunctionByValue,
    types: tuple[Any, ...],
    returns: Any,
    expected: CacheEntry,
) -> bool:
    """Compile a function, unless it is in the cache.

    Args:
        function: the function.
        types: the types of its arguments.
        returns: the type that it must return; None: any.
        expected: where the program will look for it.

    Returns:
        Whether it was compiled.

    Raises:
        RuntimeError: the program would not find it.
        TypeError: it returns another type.
        Exception: Numba raises it.
    """
    be_a_worker()
    dispatcher = function.load()
    expected.check(CacheEntry.of(dispatcher))
    compiled_before = dispatcher.stats.cache_misses[types]
    # By the types alone, as a program that calls the function looks it up.
    dispatcher.compile(types)
    inferred = dispatcher.overloads[types].signature.return_type
    if returns is not None and inferred != returns:
        raise TypeError(
            f"{dispatcher.__qualname__} returns {inferred}, not {returns}: leave the type of the"
            " result out of the signature"
        )
    return bool(dispatcher.stats.cache_misses[types] > compiled_before)


def compile_ptx(
    function: Callable[..., Any], signature: Any, cc: tuple[int, int], options: Mapping[str, Any]
) -> tuple[str, Any]:
    """Compile a function by `numba.cuda.compile_ptx`; raises what that raises."""
    from numba import cuda

    ptx, returns = cuda.compile_ptx(function, signature, cc=cc, **options)
    return ptx, returns
