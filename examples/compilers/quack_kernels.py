"""Compile kernels of QuACK (CuTe DSL) in the pool, without a GPU; the program loads their objects.

Run: python examples/compilers/quack_kernels.py    (needs quack-kernels and triton)
"""

import os
import sys
import tempfile
import time

# A target, since there may be no GPU. QuACK and CuTe read it when they are imported.
os.environ["QUACK_ARCH"] = "90"
os.environ["CUTE_DSL_ARCH"] = "sm_90a"

import quack.cache
import quack.rmsnorm  # whose name the package gives to a function, too
from cutlass import Float16
from quack.cache import CompilePending, async_compile

import compilepool

cache = tempfile.TemporaryDirectory()
quack.cache.CACHE_DIR = cache.name
compile_forward = sys.modules["quack.rmsnorm"]._compile_rmsnorm_fwd
calls = [
    (Float16, Float16, None, Float16, None, None, size, False, False, False, False)
    for size in (256, 512, 1024, 2048)
]

with compilepool.CompilePool(
    max_workers=2,
    preload=["quack.cache._pool_preload"],
    initializer=async_compile._pool_initializer,
    initargs=async_compile._detect_arch_env(),
) as workers:
    # QuACK's own pool, on our workers; its autotuner and its kernels use the active one.
    pool = async_compile._active_pool = async_compile.CompilePool(executor=workers)
    pending = []
    for call in calls:
        try:
            compile_forward(*call)
        except CompilePending as submitted:
            pending.append(submitted.sha)
    while any(pool.poll(sha)[0] == "pending" for sha in pending):
        time.sleep(0.05)
    print("in workers:", [pool.poll(sha)[0] for sha in pending])
    for call in calls:
        compile_forward(*call)
    print("in the program:", compile_forward.cache_info().misses, "compiled")
