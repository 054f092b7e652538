"""The list of variants that the demo compiles. Does not import triton."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Variant:
    """A kernel with the types, constants and options to compile it with.

    Attributes:
        name: a unique name, also of the cubin's file.
        kernel: the name of the function in `compilepool.cli.demo.kernels`.
        arguments: Triton's type of each argument that is known only at run time.
        constants: the value of each `constexpr` argument.
        num_warps: the number of warps of a program.
        num_stages: the depth of the pipeline of its loops.
    """

    name: str
    kernel: str
    arguments: Mapping[str, str]
    constants: Mapping[str, int]
    num_warps: int
    num_stages: int = 1


def _vector_add(dtype: str, block: int, warps: int) -> Variant:
    return Variant(
        f"vector_add_{dtype}_{block}_w{warps}",
        "vector_add",
        {"x": f"*{dtype}", "y": f"*{dtype}", "out": f"*{dtype}", "n": "i32"},
        {"BLOCK": block},
        warps,
    )


def _softmax(dtype: str, block: int, warps: int) -> Variant:
    return Variant(
        f"softmax_{dtype}_{block}_w{warps}",
        "softmax",
        {"x": f"*{dtype}", "out": f"*{dtype}", "row_stride": "i32", "n_columns": "i32"},
        {"BLOCK": block},
        warps,
    )


def _layer_norm(dtype: str, block: int, warps: int) -> Variant:
    pointers = dict.fromkeys(("x", "out", "weight", "bias"), f"*{dtype}")
    return Variant(
        f"layer_norm_{dtype}_{block}_w{warps}",
        "layer_norm",
        {**pointers, "row_stride": "i32", "n_columns": "i32", "epsilon": "fp32"},
        {"BLOCK": block},
        warps,
    )


def _matmul(dtype: str, tile: tuple[int, int, int], warps: int, stages: int) -> Variant:
    m, n, k = tile
    return Variant(
        f"matmul_{dtype}_{m}x{n}x{k}_w{warps}_s{stages}",
        "matmul",
        {**dict.fromkeys("abc", f"*{dtype}"), **dict.fromkeys("MNK", "i32")},
        {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP_M": 8},
        warps,
        stages,
    )


def _attention(
    dtype: str, tile: tuple[int, int], head_dim: int, causal: bool, warps: int, stages: int
) -> Variant:
    m, n = tile
    kind = "attn_causal" if causal else "attn"
    pointers = dict.fromkeys(("q", "k", "v", "out"), f"*{dtype}")
    return Variant(
        f"{kind}_{dtype}_{m}x{n}_d{head_dim}_w{warps}_s{stages}",
        "attention",
        {**pointers, "scale": "fp32", "length": "i32"},
        {"HEAD_DIM": head_dim, "BLOCK_M": m, "BLOCK_N": n, "CAUSAL": causal},
        warps,
        stages,
    )


VARIANTS = (
    _vector_add("fp32", 1024, warps=4),
    _vector_add("fp16", 2048, warps=8),
    _vector_add("bf16", 1024, warps=4),
    _softmax("fp32", 1024, warps=4),
    _softmax("fp16", 2048, warps=8),
    _softmax("bf16", 4096, warps=8),
    _softmax("fp32", 8192, warps=16),
    _layer_norm("fp32", 1024, warps=4),
    _layer_norm("fp16", 2048, warps=8),
    _layer_norm("bf16", 4096, warps=8),
    _layer_norm("bf16", 8192, warps=16),
    _matmul("fp16", (64, 64, 32), warps=4, stages=3),
    _matmul("fp16", (64, 64, 64), warps=4, stages=4),
    _matmul("fp16", (128, 64, 32), warps=4, stages=4),
    _matmul("fp16", (128, 128, 32), warps=4, stages=4),
    _matmul("fp16", (128, 128, 64), warps=4, stages=3),
    _matmul("fp16", (128, 128, 64), warps=8, stages=3),
    _matmul("fp16", (128, 256, 64), warps=8, stages=3),
    _matmul("bf16", (64, 128, 64), warps=4, stages=4),
    _matmul("bf16", (128, 128, 64), warps=8, stages=4),
    _matmul("bf16", (256, 128, 64), warps=8, stages=3),
    _matmul("fp32", (64, 64, 32), warps=4, stages=3),
    _attention("fp16", (64, 64), 64, causal=False, warps=4, stages=2),
    _attention("fp16", (128, 64), 64, causal=True, warps=4, stages=3),
    _attention("fp16", (128, 64), 128, causal=False, warps=8, stages=2),
    _attention("bf16", (64, 64), 64, causal=True, warps=4, stages=3),
    _attention("bf16", (128, 64), 128, causal=True, warps=8, stages=3),
    _attention("bf16", (128, 128), 128, causal=False, warps=8, stages=2),
)
