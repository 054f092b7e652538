"""`precompile_in`: Helion's precompile step, of one configuration, as a job of a pool."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence

from helion.autotuner.precompile_future import (
    PrecompileFuture,
    RemoteError,
    _serialize_compiled_fn,
)

from compilepool.client.pool import CompilePool
from compilepool.errors import CompilePoolError, JobTimeout, MemoryLimitExceeded, WorkerCrashed
from compilepool.integrations.helion.job_as_process import JobAsProcess
from compilepool.integrations.helion.worker import compile_job
from compilepool.light_typing import Any

_COSTS_ITS_CONFIGURATION = (WorkerCrashed, JobTimeout, MemoryLimitExceeded)

_RECIPE = ("fn", "signature", "constexprs", "attrs", "target", "options")
"""The variables of `make_precompiler` (helion/runtime/precompile_shim.py) that say what to compile.
"""


def precompile_in(
    pool: CompilePool, helions_own: Callable[..., PrecompileFuture]
) -> Callable[..., PrecompileFuture]:
    """What to put in place of `PrecompileFuture.create`.

    Args:
        pool: the pool to compile in.
        helions_own: Helion's own `create`. It prepares each configuration, and does all that is no
            fork.
    """

    def create(
        ctx: Any, config: Any, fn: Any, args: Sequence[object], result_path: str, args_path: Any
    ) -> PrecompileFuture:
        own = helions_own(ctx, config, fn, args, result_path, args_path)
        if own.process is None or ctx.settings.autotune_precompile != "fork":
            return own
        # More at once would wait for a worker while their time runs.
        ctx.jobs = min(ctx.jobs, pool.max_workers)
        submit = _submission(pool, fn, own.process._args[0], str(config))
        job = JobAsProcess(submit, pool.wait_ready)
        return PooledPrecompile(ctx=ctx, config=config, process=job, timeout=own.timeout)

    return create


class PooledPrecompile(PrecompileFuture):  # type: ignore[misc]
    """The precompilation of a configuration in a pool."""

    process: Any
    _result_received: bool

    def start(self) -> None:
        """Submit the job. Its time runs from now, so the pool must have started."""
        self.process.wait_ready()
        super().start()

    def _consume_result(self, *, raise_on_raise: bool) -> None:
        if not self._result_received:
            self._result_received = True
            if self.failure_reason == "timeout":
                self._remote_error_handled = True  # Helion has logged it
            else:
                self.remote_error = self._error()
        super()._consume_result(raise_on_raise=raise_on_raise)

    def _error(self) -> RemoteError | None:
        """What has gone wrong, as Helion words it; None: nothing.

        Raises:
            CompilePoolError: it is not this configuration that has failed, but the pool.
        """
        error = self.process.error
        if error is None:
            return None
        if isinstance(error, _COSTS_ITS_CONFIGURATION):
            self.ctx.log.warning(f"Left out {self.config}: {error}")
            if isinstance(error, JobTimeout):
                self.failure_reason = "timeout"
        elif isinstance(error, CompilePoolError):
            raise error
        return RemoteError(
            exc_type=type(error).__name__,
            exc_module=type(error).__module__,
            exc_args=(str(error),),
            traceback=None if error.__cause__ is None else str(error.__cause__),
            classification=getattr(error, compile_job.CLASSIFICATION, "debug"),
            captured_output=self.process.output,
        )


def _submission(
    pool: CompilePool, fn: Any, precompiler: Callable[..., Any], name: str
) -> Callable[[], Any]:
    """What submits the job of a configuration.

    Args:
        pool: the pool.
        fn: the function that Helion has generated for it.
        precompiler: what Helion would call in a fork.
        name: the job's name.
    """
    known = inspect.getclosurevars(precompiler).nonlocals
    kernel, signature, constants, attributes, target, options = (known[each] for each in _RECIPE)
    source = kernel.ASTSource(kernel, signature, constants, attributes)
    env = {key: value for key, value in os.environ.items() if key.startswith("TRITON_")}
    return functools.partial(
        pool.options(name=name, env=env).submit,
        compile_job.precompile,
        _serialize_compiled_fn(fn),
        kernel.__name__,
        compile_job.Recipe(signature, constants, attributes, target, dict(options.__dict__)),
        source.hash(),
    )
