"""Kernels that workers import, a GPU that is not there, and what Triton's listener hears."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.language import core
from triton.runtime.driver import driver

TARGET = GPUTarget("cuda", 90, 32)


class Driver:
    """As much of Triton's driver as it asks before it compiles for an H100. It cannot launch."""

    def get_current_target(self) -> GPUTarget:
        return TARGET

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0


@contextmanager
def target_without_gpu() -> Iterator[None]:
    """Within the block, Triton compiles for an H100."""
    before = driver._active
    driver.set_active(Driver())
    try:
        yield
    finally:
        driver._active = before


class Pointer:
    """An argument that points to numbers of a type, and is aligned."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype

    def data_ptr(self) -> int:
        return 0


class Listener:
    """Triton's listener, by name what this process has found, and what it has compiled."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.compiled: list[str] = []

    def __call__(self, *, src: Any, cache_hit: bool, **_: Any) -> None:
        (self.hits if cache_hit else self.compiled).append(src.name)


@core.extern  # type: ignore[untyped-decorator]
def of_another_gpu(value: Any, _semantic: Any = None) -> Any:
    """An intrinsic of AMD's, at which LLVM aborts when it selects instructions for NVIDIA."""
    int32 = core.dtype("int32")
    name = "llvm.amdgcn.readfirstlane.i32"
    return core.extern_elementwise(
        "", "", [value], {(int32,): (name, int32)}, is_pure=False, _semantic=_semantic
    )


FACTOR = tl.constexpr(3)


@triton.jit  # type: ignore[untyped-decorator]
def scaled(value, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
    return (value * FACTOR).to(dtype)


@triton.jit(do_not_specialize=["size"])  # type: ignore[untyped-decorator]
def scale(x, out, size, dtype: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, scaled(tl.load(x + at, mask=at < size), dtype), mask=at < size)


@triton.jit  # type: ignore[untyped-decorator]
def fragile(x, BLOCK: tl.constexpr, UNROLL: tl.constexpr):  # type: ignore[no-untyped-def]
    """LLVM aborts if BLOCK is 64; it takes very long if UNROLL is large."""
    at = tl.arange(0, BLOCK)
    value = tl.load(x + at)
    if BLOCK == 64:
        value = of_another_gpu(value.to(tl.int32)).to(tl.float32)
    for _ in tl.static_range(UNROLL):
        value = value * value + tl.load(x + at)
    tl.store(x + at, value)
