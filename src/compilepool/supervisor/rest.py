"""A supervisor that sleeps takes as little memory as it can."""

from __future__ import annotations

import contextlib
import gc

from compilepool.wire import kernel
from compilepool.wire.smaps import unwritten_file_mappings


def give_back_memory() -> None:
    """Give the kernel what is not needed for sleeping: freed memory, and the interpreter's code.

    The code is in the page cache all the same, and comes back page by page as it runs.
    """
    gc.collect()
    kernel.trim_heap()
    with contextlib.suppress(OSError, ValueError):
        for start, end in unwritten_file_mappings():
            kernel.drop_pages(start, end)
