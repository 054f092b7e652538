"""compilepool in PyTorch: `torch.compile` compiles in our workers.

    from compilepool.integrations.torch import install
    install()

at the top of a program, before torch is imported if that can be; or, with no change to it,
`compilepool run -- python train.py`. torch 2.11 or later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compilepool.integrations.torch.takeover.installed import installed

if TYPE_CHECKING:
    from compilepool.client.pool import CompilePool
    from compilepool.integrations.torch.takeover.pool_for_torch import OnCrash

__all__ = ["current_pool", "install", "uninstall"]


def install(*, on_crash: OnCrash = "raise", **pool_options: Any) -> None:
    """Have TorchInductor compile in a `CompilePool`, from now on, and in forked children, too.

    The pool starts now, and imports torch while this process does. It has as many workers as
    `torch._inductor.config.compile_threads` says, and goes to sleep when Inductor's config says.
    The pool that Inductor may have started is ended when its jobs have ended. If a pool was
    installed before, this one takes its place.

    If Inductor's `compile_threads` is 1, it compiles by itself, whatever `max_workers` is.

    A job that fails raises `torch._inductor.exc.InductorError` as before; its text names the kernel
    and has the pool's report.

    Args:
        on_crash: what becomes of a kernel whose worker crashed. "raise": it fails. "in_process":
            it is compiled in this process, where the compiler may crash again.
        pool_options: the options of `CompilePool`, such as `timeout` and `memory_limit`, which hold
            for each kernel.

    Raises:
        TypeError, ValueError, OSError, CompilePoolError: as `CompilePool`.
        ImportError: there is no torch.
        UnsupportedTorch: this torch has no place for the pool. (If Inductor is not imported yet,
            that is a RuntimeWarning, when it is.)
    """
    installed.install(on_crash, pool_options, is_early=True)


def uninstall() -> None:
    """Have Inductor use its own pool again. Waits for the jobs that ours has, and ends it."""
    installed.uninstall()


def current_pool() -> CompilePool | None:
    """The pool that Inductor compiles in, for `stats` and `dump`; None if there is none now."""
    return installed.pool
