"""Whether this process may be forked after what it has imported."""

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
    """Why forking this process is unsafe; empty if it is not.

    A fork copies one thread only, and whatever locks the others held; a GPU driver's state does
    not survive in the child at all.
    """
    return reasons_against(proc.names_of_other_threads(), proc.open_files())


def reasons_against(threads: Sequence[str], files: Iterable[str]) -> str:
    """What is unsafe about these.

    Args:
        threads: names of the threads besides the main one; one that has none of its own has "".
        files: targets of the open descriptors.
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
    """Within it, a BLAS that is loaded starts no threads, unless the user has set how many.

    OpenBLAS, which numpy brings, starts them when it is loaded, and torch imports numpy: nothing
    of theirs could be preloaded otherwise. Workers, of which there is one for each CPU, have no use
    for them. The environment of the jobs is the user's again.
    """
    if _BLAS_THREADS in os.environ:
        yield
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        yield
    finally:
        if os.environ.get(_BLAS_THREADS) == "1":  # and not what a module has set
            del os.environ[_BLAS_THREADS]
