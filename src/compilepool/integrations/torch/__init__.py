"""compilepool in PyTorch: `torch.compile` compiles its kernels in a `CompilePool`.

Put this at the top of a program, before `import torch` if possible:

    from compilepool.integrations.torch import install
    install()

`compilepool run -- python train.py` does the same without a change to the program. torch must be
2.11 or later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compilepool.integrations.torch.takeover.installed import installed
from compilepool.light_typing import lazy_annotations

if TYPE_CHECKING:
    from compilepool.client.pool import CompilePool
    from compilepool.integrations.torch.takeover.pool_for_torch import OnCrash, WorkerMode

__all__ = ["current_pool", "install", "uninstall"]


@lazy_annotations
def install(
    *,
    on_crash: OnCrash = "raise",
    shared: bool | None = None,
    worker_mode: WorkerMode | None = None,
    **pool_options: Any,
) -> None:
    """Make TorchInductor compile in a `CompilePool`, in this process and in its forked children.

    The pool starts now, and imports torch while this process does. It has as many workers as
    `torch._inductor.config.compile_threads` says, and quiesces as Inductor's config says. If
    `compile_threads` is 1, Inductor compiles in this process, whatever `max_workers` is.

    A pool that Inductor has started by itself is shut down when its jobs have ended. A pool of an
    earlier `install` is replaced.

    A kernel that fails raises `torch._inductor.exc.InductorError`, as without compilepool. Its text
    names the kernel and has the pool's report.

    Args:
        on_crash: what to do with a kernel whose worker crashed. "raise": it fails. "in_process":
            this process compiles it, which may crash this process.
        shared: whether all ranks of this node use one pool, and compile each kernel once. None: as
            the environment variable COMPILEPOOL_SHARED says; without it, if a launcher such as
            torchrun has started several ranks here (`LOCAL_WORLD_SIZE` is over 1).
        worker_mode: "process": the pool compiles Triton kernels whatever Inductor's worker mode is,
            which torch has from 2.15 on. None: as Inductor's `compile_worker_mode` says. If it
            says threads, a RuntimeWarning tells what that means.
        pool_options: options of `CompilePool`, such as `timeout` and `memory_limit`, which hold for
            each kernel.

    Raises:
        TypeError, ValueError, OSError, CompilePoolError: the options are wrong, or the pool cannot
            start; see `CompilePool`.
        ImportError: torch is not installed.
        UnsupportedTorch: this version of torch cannot use another pool. If Inductor is not imported
            yet, a RuntimeWarning says so when it is.
    """
    installed.install(on_crash, shared, worker_mode, pool_options, is_early=True)


def uninstall() -> None:
    """Make Inductor use its own pool again. Wait for the jobs of the installed pool, and end it."""
    installed.uninstall()


@lazy_annotations
def current_pool() -> CompilePool | None:
    """Return the pool in which Inductor compiles, for `stats` and `dump`; None: there is none."""
    return installed.pool
