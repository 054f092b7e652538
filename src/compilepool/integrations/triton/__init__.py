"""compilepool for Triton: kernels compile in a `CompilePool`, into Triton's cache on the disk.

    from compilepool.integrations.triton import PRELOAD, AsyncCompileExecutor

    with CompilePool(preload=[PRELOAD]) as pool:
        with triton.AsyncCompileMode(AsyncCompileExecutor(pool)):
            for size in sizes:
                kernel.warmup(x, size, grid=(1,), BLOCK=128)

Afterwards, the program launches the kernels, and compiles nothing. `compile_many` does the same
ahead of time, on a machine that needs no GPU. `crash_proof` lets `@triton.autotune` leave out
configurations whose compilation crashes or takes too long. Triton must be 3.6 or later.
"""

from __future__ import annotations

from compilepool.integrations.triton.ahead_of_time import compile_many
from compilepool.integrations.triton.autotuning import NoConfigurationLeft, crash_proof
from compilepool.integrations.triton.executor import PRELOAD, AsyncCompileExecutor

__all__ = ["PRELOAD", "AsyncCompileExecutor", "NoConfigurationLeft", "compile_many", "crash_proof"]
