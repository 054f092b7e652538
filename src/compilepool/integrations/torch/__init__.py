"""compilepool in PyTorch: `torch.compile` compiles its kernels in a `CompilePool`.

Put this at the top of a program, before `import torch` if possible:

    from compilepool.integrations.torch import install
    install()

`compilepool run -- python train.py` does the same without a change to the program. torch must be
2.11 or later.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from compilepool.light_typing import lazy_annotations

if TYPE_CHECKING:
    from compilepool.client.pool import CompilePool
    from compilepool.integrations.torch.takeover.inductor import Takeover
    from compilepool.integrations.torch.takeover.installation import Installation
    from compilepool.integrations.torch.takeover.pool_for_torch import OnCrash

__all__ = ["current_pool", "install", "uninstall"]

ENABLE = "COMPILEPOOL_TORCH"
"""The environment variable that switches the integration on, by 1."""

PROGRAM_PID = "COMPILEPOOL_TORCH_PID"
"""The variable with the process that `compilepool run` has become; all others descend from it."""

OPTIONS = "COMPILEPOOL_TORCH_OPTIONS"
"""The variable with the arguments of `install`, as JSON."""


class _Installed:
    """What is installed in this process. `install` may be called by any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.installation: Installation | None = None
        self.takeover: Takeover | None = None

    def after_fork(self) -> None:
        """In the child: whoever had the locks is not there."""
        self.lock = threading.RLock()
        if self.installation is not None:
            self.installation.after_fork()


_installed = _Installed()
os.register_at_fork(after_in_child=_installed.after_fork)


@lazy_annotations
def install(*, on_crash: OnCrash = "raise", **pool_options: Any) -> None:
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
        pool_options: options of `CompilePool`, such as `timeout` and `memory_limit`, which hold for
            each kernel.

    Raises:
        TypeError, ValueError, OSError, CompilePoolError: the options are wrong, or the pool cannot
            start; see `CompilePool`.
        ImportError: torch is not installed.
        UnsupportedTorch: this version of torch cannot use another pool. If Inductor is not imported
            yet, a RuntimeWarning says so when it is.
    """
    _install(on_crash, pool_options, is_early=True)


def uninstall() -> None:
    """Make Inductor use its own pool again. Wait for the jobs of the installed pool, and end it."""
    with _installed.lock:
        installation, _installed.installation = _installed.installation, None
        takeover, _installed.takeover = _installed.takeover, None
        if takeover is not None:
            takeover.undo()
    if installation is not None:
        installation.end()


@lazy_annotations
def current_pool() -> CompilePool | None:
    """Return the pool in which Inductor compiles, for `stats` and `dump`; None: there is none."""
    installation = _installed.installation
    return None if installation is None else installation.pool


def _install(on_crash: str, pool_options: dict[str, Any], *, is_early: bool) -> None:
    from compilepool.integrations.torch.takeover.inductor import Takeover
    from compilepool.integrations.torch.takeover.installation import Installation

    new = Installation(on_crash, pool_options, is_early=is_early)
    with _installed.lock:
        try:
            if _installed.takeover is None:
                _installed.takeover = Takeover(new)
            _installed.takeover.source = new
        except BaseException:
            new.end()
            raise
        old, _installed.installation = _installed.installation, new
    if old is not None:
        old.end()
