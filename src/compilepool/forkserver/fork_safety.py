"""Tells whether the fork server may be forked after what it has imported."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from compilepool.linux import proc

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"

_GPU_DEVICE = re.compile(
    r"/dev/(nvidia\d+|nvidiactl|nvidia-uvm|kfd|dri/renderD\d+|dri/card\d+|accel\S*|davinci\d+)$"
)


def why_unsafe() -> str:
    """The reasons why forking this process is unsafe; empty if it is safe.

    A fork copies only one thread, but also the locks that the other threads held. The state of a
    GPU driver does not survive in the child.
    """
    return reasons_against(proc.names_of_other_threads(), proc.open_files())


def reasons_against(threads: Sequence[str], files: Iterable[str]) -> str:
    """The reasons against forking a process; empty if there are none.

    Args:
        threads: the names of all threads except the main thread; "" for a thread without a name of
            its own.
        files: the targets of the open descriptors.
    """
    reasons = []
    if threads:
        names = ", ".join(sorted({name for name in threads if name}))
        plural = "" if len(threads) == 1 else "s"
        reasons.append(f"runs {len(threads)} more thread{plural}" + (f" ({names})" * bool(names)))
    if devices := sorted({path for path in files if _GPU_DEVICE.match(path)}):
        reasons.append(f"has opened a GPU ({', '.join(devices)})")
    return " and ".join(reasons)


@contextlib.contextmanager
def quiet_blas() -> Iterator[None]:
    """Keep a BLAS that is loaded in this context from starting threads.

    It changes nothing if the user has set the number of threads. OpenBLAS, which comes with numpy,
    starts threads when it is loaded, and torch imports numpy. Without this context, no module that
    imports them could be preloaded. Workers do not need the threads, because there is one worker
    for each CPU. After the context, the environment is the user's again.
    """
    if _BLAS_THREADS in os.environ:
        yield
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        if os.environ.get(_BLAS_THREADS) == "1":  # a module may have set another number
            del os.environ[_BLAS_THREADS]
