"""`autoload`, which torch calls at the end of its own import.

torch calls every entry point of the group "torch.backends"; see
https://docs.pytorch.org/tutorials/unstable/python_extension_autoload.html.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings

from compilepool.integrations.torch.settings import ENABLE, options_of_environment


def autoload() -> None:
    """Install a pool if the environment asks for it. An error is reported as a warning.

    The pool starts at once in a process that may compile. Launchers and data loaders also import
    torch and compile nothing: there, the pool starts when Inductor asks for it.
    """
    wanted = os.environ.get(ENABLE, "")
    if wanted in ("", "0"):
        return
    from compilepool.any_process.identity import in_toplevel_process

    if not in_toplevel_process():
        return
    try:
        if wanted != "1":
            raise ValueError(f"{ENABLE} must be 1 or 0, not {wanted!r}")
        options = options_of_environment()
        from compilepool.integrations.torch.takeover.installed import installed

        on_crash, shared = options.pop("on_crash", "raise"), options.pop("shared", None)
        worker_mode = options.pop("worker_mode", None)
        installed.install(on_crash, shared, worker_mode, options, is_early=_may_compile())
    except Exception as error:  # noqa: BLE001 - the program can do without
        warnings.warn(
            f"compilepool is not used: {error}. Inductor goes on with its own pool",
            RuntimeWarning,
            stacklevel=2,
        )


def _may_compile() -> bool:
    # A child that is being spawned does not know its parent_process() yet when it imports torch.
    is_child = multiprocessing.parent_process() is not None or any(
        word in argument
        for word in ("--multiprocessing-fork", "multiprocessing.forkserver")
        for argument in sys.orig_argv
    )
    is_told_not_to = os.environ.get("TORCH_WARM_POOL", "1") != "1"
    is_launcher = any(
        name in sys.orig_argv for name in ("torch.distributed.run", "torch.distributed.launch")
    ) or os.path.basename(sys.argv[0] if sys.argv else "") in ("torchrun", "torchrun.exe")
    return not (is_child or is_told_not_to or is_launcher)
