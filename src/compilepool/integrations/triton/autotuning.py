"""`crash_proof`: has the configurations of an autotuned kernel compile in a pool, then measured."""

from __future__ import annotations

import logging
from collections.abc import Callable

import triton
from triton.compiler.errors import CompileTimeAssertionFailure
from triton.runtime._async_compile import active_mode
from triton.runtime.autotuner import Autotuner
from triton.runtime.errors import OutOfResources, PTXASError

from compilepool.client.options import AS_THE_POOL, AsThePool
from compilepool.client.pool import CompilePool
from compilepool.errors import CompilePoolError, PoolClosed
from compilepool.integrations.triton.executor import AsyncCompileExecutor
from compilepool.integrations.triton.kernel_future import KernelFuture
from compilepool.light_typing import Any, lazy_annotations

_log = logging.getLogger(__name__)

_UNFIT = (CompilePoolError, OutOfResources, CompileTimeAssertionFailure, PTXASError)
"""What makes a configuration unfit: the pool's errors, and those that Triton passes over, too."""


class NoConfigurationLeft(CompilePoolError):
    """No configuration of an autotuned kernel could be compiled."""


@lazy_annotations
def crash_proof(
    pool: CompilePool,
    *,
    timeout: float | AsThePool | None = AS_THE_POOL,
    memory_limit: int | str | AsThePool | None = AS_THE_POOL,
) -> Callable[[Any], Any]:
    """Decorate an autotuned kernel: its configurations compile in a pool, then they are measured.

        @crash_proof(pool, timeout=60, memory_limit="8GiB")
        @triton.autotune(configs=[...], key=["n"])
        @triton.jit
        def kernel(...): ...

    All configurations that are to be measured compile in parallel. One that crashes the compiler,
    or goes over a limit, is left out, and so is one that Triton itself would pass over. The log has
    a warning for each. `kernel.left_out` has the configurations left out, each with its error.

    The kernel itself is changed, so `crash_proof(pool)(library.kernel)` does for that of a library.
    A kernel with a single configuration is not measured by Triton, and compiles in the program.

    Args:
        pool: the pool, best with `preload=[PRELOAD]` and the module of the kernel.
        timeout: the time that a configuration may take, in seconds; None: no limit. Default: the
            pool's.
        memory_limit: the memory that it may take, in bytes or as text; None: no limit. Default: the
            pool's.

    Returns:
        A decorator, which returns the kernel. Its launches raise `NoConfigurationLeft` if there is
        no configuration left, and other errors of Triton's as before.

    Raises:
        TypeError: from the decorator: this is no autotuned kernel.
    """

    def decorate(kernel: Any) -> Any:
        if not isinstance(kernel, Autotuner):
            raise TypeError(
                f"crash_proof needs what @triton.autotune has made, not {kernel!r}; put it above"
                " @triton.autotune"
            )
        executor = AsyncCompileExecutor(pool, timeout=timeout, memory_limit=memory_limit)
        kernel.prune_configs = _Pruning(kernel, executor).prune
        kernel.left_out = {}
        return kernel

    return decorate


class _Pruning:
    """Takes the place of `Autotuner.prune_configs`, which `Autotuner.run` calls before it measures.

    By then, `Autotuner.nargs` has the positional arguments, by name (`triton/runtime/autotuner.py`,
    3.4 to 3.9).
    """

    def __init__(self, kernel: Any, executor: AsyncCompileExecutor) -> None:
        self._kernel = kernel
        self._executor = executor
        self._prune = kernel.prune_configs

    def prune(self, kwargs: dict[str, Any]) -> list[Any]:
        """The configurations that are to be measured."""
        configs: list[Any] = self._prune(kwargs)
        if active_mode.get() is not None:
            return configs  # the program itself has all of them compiled
        errors = self._compile(configs, kwargs)
        for config, error in errors.items():
            self._leave_out(config, error)
        if len(errors) == len(configs):
            first = next(iter(errors.values()))
            raise NoConfigurationLeft(
                f"none of the {len(configs)} configurations of kernel {self._name} could be"
                f" compiled; `left_out` has the errors, the first of which is: {_first_line(first)}"
            ) from first
        return [config for config in configs if config not in errors]

    def _compile(self, configs: list[Any], kwargs: dict[str, Any]) -> dict[Any, BaseException]:
        """Compile the configurations. Returns those that failed."""
        with triton.AsyncCompileMode(self._executor, ignore_errors=True):
            futures = {config: self._start(config, kwargs) for config in configs}
        errors = {}
        for config, future in futures.items():
            error = None if future is None or future.job is None else future.job.exception()
            if error is not None:
                errors[config] = error
        return errors

    def _start(self, config: Any, kwargs: dict[str, Any]) -> KernelFuture | None:
        """Start to compile a configuration; None if this process has it."""
        arguments = {**self._kernel.nargs, **kwargs, **config.all_kwargs()}
        if config.pre_hook is not None:  # it may change what the kernel is compiled for
            config.pre_hook(arguments)
        arguments.pop("warmup", None)
        kernel = self._kernel.fn.warmup(**arguments)
        future: KernelFuture | None = vars(kernel).get("future")  # a `FutureKernel` has one
        return future

    def _leave_out(self, config: Any, error: BaseException) -> None:
        if not isinstance(error, _UNFIT) or isinstance(error, PoolClosed):
            raise error
        self._kernel.left_out[config] = error
        _log.warning("kernel %s is tuned without %s: %s", self._name, config, _first_line(error))

    @property
    def _name(self) -> str:
        return str(self._kernel.base_fn.__name__)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
