"""Patches torch and Triton in a worker: torch learns that it is one, and both report phases."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, cast

import compilepool

CACHE_LOOKUP = "cache look-up"
COMPILE = "compile"


def be_a_worker() -> None:
    """Tell torch that this process is a worker, or that workers will be forked from it."""
    from torch._inductor.compile_worker import utils

    utils._IN_TOPLEVEL_PROCESS = False
    utils.has_parent_changed = compilepool.has_parent_changed
    _set_ptxas_path()
    _report_phases_of_torch()
    _report_phases_of_triton()


def find_triton_key() -> Callable[[], object]:
    """Return Triton's function that hashes Triton itself. It caches the hash.

    Every compilation needs the hash. The module of the function depends on the version of Triton
    (torch/_inductor/runtime/triton_compat.py).
    """
    for name in ("triton.runtime.cache", "triton.compiler.compiler"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            if key := getattr(module, "triton_key", None):
                return cast(Callable[[], object], key)
    return _nothing


def _nothing() -> None:
    """Replaces the function where Triton is not installed."""


def _set_ptxas_path() -> None:
    from torch._inductor.runtime.compile_tasks import _set_triton_ptxas_path

    _set_triton_ptxas_path()


def _report_phases_of_torch() -> None:
    """Redirect torch's reports of phases, which go to its own watchdog in torch 2.14 and later."""
    try:
        from torch._inductor.compile_worker import watchdog
    except ImportError:
        return
    from compilepool.integrations.torch.compile_worker.watchdog import report_phase

    watchdog.report_phase = report_phase


def _report_phases_of_triton() -> None:
    """Let Triton report phases, by methods of a backend's class that no cache key depends on."""
    try:
        from triton.backends import backends
    except ImportError:
        return
    for backend in backends.values():
        compiler = backend.compiler
        _report(compiler, "add_stages", COMPILE)  # called if the kernel is not in Triton's cache
        _report(compiler, "make_cubin", "ptxas", then=COMPILE)
        _report(compiler, "make_hsaco", "lld", then=COMPILE)


def _report(owner: type, method: str, phase: str, then: str = "") -> None:
    original: Callable[..., Any] | None = getattr(owner, method, None)
    if original is None:
        return
    is_static = isinstance(inspect.getattr_static(owner, method), staticmethod)

    @functools.wraps(original)
    def reporting(*args: Any, **kwargs: Any) -> Any:
        compilepool.report_phase(phase)
        result = original(*args, **kwargs)
        if then:
            compilepool.report_phase(then)
        return result

    setattr(owner, method, staticmethod(reporting) if is_static else reporting)
