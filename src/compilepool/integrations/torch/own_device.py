"""Turns the result of a kernel's job into what this process's own job would have returned.

Another rank's job may have compiled it, for another device. What follows from the index of the
device is listed by `tests/pytorch/test_own_device.py`, which compares such a result with one that
was compiled for the device: the index itself, in the kernel and in each of its configurations; and
the hash of the source, in the names of the module and its file, and of the file in which autotuning
keeps its choice.

One thing stays the other rank's: the names of source files in debug information, as in a kernel
that comes from Triton's cache on disk.
"""

from __future__ import annotations

from typing import Any

from torch._inductor.codecache import PyCodeCache, get_hash, get_path
from torch._inductor.runtime.autotune_cache import AutotuneCache
from torch._inductor.runtime.runtime_utils import triton_config_to_hashable
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

from compilepool.integrations.torch.flight import KernelSource


class UnknownResult(Exception):
    """A result is not what torch 2.11 to 2.15 makes of the kernel's source."""


def for_own_device(result: Any, source: KernelSource) -> Any:
    """Change a result of `_worker_compile_triton`, which this or another rank's job returned.

    Args:
        result: the autotuner of the kernel, and the time that it took to compile. It is this
            process's own copy, and nothing has been launched yet.
        source: the source that this process has submitted.

    Returns:
        The same result, for the device of `source`.

    Raises:
        UnknownResult: it is not the result of this source, for whatever device.
        Exception: torch is not as expected. The result may be changed in part, and is of no use.
    """
    kernel, _elapsed_us = result
    _check(kernel, source)
    key, path = PyCodeCache.write(source.for_device(source.device))  # as its own job would have
    if kernel.device_props.index != source.device:
        _rename(kernel, source, key, path)
        _set_index(kernel, source.device)
    _choose_again(kernel)
    return result


def _check(kernel: Any, source: KernelSource) -> None:
    if not isinstance(kernel, CachingAutotuner):
        raise UnknownResult(f"it is a {type(kernel).__name__}")
    key, path = _names(source.for_device(kernel.device_props.index))
    if not kernel.fn.__module__.endswith(f".{key}") or kernel.filename not in (path, None):
        raise UnknownResult(f"its module is {kernel.fn.__module__}, not {key}")
    indices = [kernel.triton_meta["device"]]
    indices += [compiled.compile_meta["device"] for compiled in kernel.compile_results]
    if set(indices) != {kernel.device_props.index}:
        raise UnknownResult(f"its device is {kernel.device_props.index}, and also {indices}")


def _names(text: str) -> tuple[str, str]:
    """Return the hash of a source and the path of its file, as `PyCodeCache.write` makes them."""
    key, _folder, path = get_path(get_hash(text.strip()), "py")
    return key, path


def _rename(kernel: Any, source: KernelSource, own_key: str, own_path: str) -> None:
    its_text = source.for_device(kernel.device_props.index)
    own_text = source.for_device(source.device)
    its_key, its_path = _names(its_text)
    for function in _functions(kernel):
        for names in (vars(function), vars(function.repr)):
            for name, value in names.items():
                if isinstance(value, str):
                    names[name] = value.replace(its_path, own_path).replace(its_key, own_key)
        line = source.before.count("\n")
        its_line, own_line = its_text.split("\n")[line], own_text.split("\n")[line]
        function.raw_src = [text.replace(its_line, own_line) for text in function.raw_src]
    if kernel.filename is not None:
        kernel.filename, kernel.kernel_hash = own_path, own_key
    if kernel.save_cache_hook:
        its_cache = kernel.save_cache_hook.__self__
        cache = AutotuneCache.create(kernel.inductor_meta, own_path, its_cache.configs_hash)
        kernel.save_cache_hook = cache and cache.save


def _functions(kernel: Any) -> list[Any]:
    """Return Triton's `JITFunction`s of the kernel: one, unless pickling has made copies of it."""
    functions = [kernel.fn]
    for compiled in kernel.compile_results:
        function = getattr(getattr(compiled.kernel, "src", None), "fn", None)
        if function is not None and all(function is not other for other in functions):
            functions.append(function)
    return functions


def _set_index(kernel: Any, index: int | None) -> None:
    kernel.device_props = kernel.device_props._replace(index=index)
    kernel.triton_meta["device"] = index
    for compiled in kernel.compile_results:
        compiled.compile_meta["device"] = index


def _choose_again(kernel: Any) -> None:
    """Keep only the configuration that autotuning has chosen for this source in the meantime.

    A worker looks for it before it compiles (`check_autotune_cache`), but the result may have been
    kept since. `CachingAutotuner.recheck_autotune_cache` does the same for results that Inductor
    has kept.
    """
    if not kernel.save_cache_hook or len(kernel.compile_results) < 2:
        return
    cache = kernel.save_cache_hook.__self__
    if cache.remote_cache:  # to ask it takes longer than this thread should wait
        return
    configs = [compiled.config for compiled in kernel.compile_results]
    best = cache.read_best(kernel.inductor_meta, configs)
    chosen = best and triton_config_to_hashable(best)
    for compiled in kernel.compile_results:
        if chosen and triton_config_to_hashable(compiled.config) == chosen:
            if getattr(best, "found_by_coordesc", False):
                compiled.config.found_by_coordesc = True
            kernel.compile_results = [compiled]
            kernel.autotune_cache_info = {"best_config": chosen, "autotune_cache_state": "hit"}
            return
