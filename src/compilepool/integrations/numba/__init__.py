"""compilepool for Numba: functions compile in a `CompilePool`, into Numba's cache on the disk.

    from compilepool.integrations.numba import compile_many

    for future in compile_many([(dot, "(f8[::1], f8[::1])"), (norm, "(f8[::1],)")]):
        future.result()

Afterwards, this program and all later ones find the functions in the cache, and compile nothing.
`compile_ptx_many` makes PTX for a GPU, on a machine that needs none.
"""

from __future__ import annotations

from compilepool.integrations.numba.submit import PRELOAD, compile_many, compile_ptx_many

__all__ = ["PRELOAD", "compile_many", "compile_ptx_many"]
