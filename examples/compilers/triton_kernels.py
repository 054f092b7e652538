"""Compile Triton kernels ahead of time, in parallel and without a GPU. One aborts LLVM.

Run: python examples/compilers/triton_kernels.py    (needs Triton)
"""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.language import core

from compilepool import CompilePool, WorkerCrashed
from compilepool.integrations.triton import PRELOAD, compile_many


@core.extern
def of_another_gpu(value, _semantic=None):
    """An intrinsic of AMD's, at which LLVM aborts when it selects instructions for NVIDIA."""
    int32 = core.dtype("int32")
    names = {(int32,): ("llvm.amdgcn.readfirstlane.i32", int32)}
    return core.extern_elementwise("", "", [value], names, is_pure=False, _semantic=_semantic)


@triton.jit
def double(x, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    if BLOCK == 64:
        value = of_another_gpu(value)
    tl.store(x + at, value + value, mask=at < n)


kernels = [
    (double, {"x": "*i32:16", "n": "i32"}, {"BLOCK": block}, {"num_warps": 4})
    for block in (32, 64, 128, 256)
]
with CompilePool(max_workers=2, preload=[PRELOAD], timeout=120) as pool:
    for future in compile_many(kernels, target=GPUTarget("cuda", 90, 32), pool=pool):
        try:
            kernel = future.result()
            print(f"{kernel.name}: {len(kernel.asm['cubin'])} bytes for sm_90")
        except WorkerCrashed as crash:
            print(crash)
