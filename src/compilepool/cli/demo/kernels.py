"""The Triton kernels that the demo compiles. Importing this module imports triton.

It is a module of its own because the pool preloads it, and because Triton reads the source of a
kernel from its file.
"""

# Triton gives the arguments of kernels their types: they are no Python values to annotate.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from triton.runtime.cache import triton_key

# This hash over all of Triton is part of every cache key, takes most of a second, and is cached.
# A worker that is forked after this import has it already.
triton_key()


@triton.jit
def vector_add(x, y, out, n, BLOCK: tl.constexpr):
    """Compute `out = x + y`, with BLOCK elements per program."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_range = offsets < n
    total = tl.load(x + offsets, mask=in_range) + tl.load(y + offsets, mask=in_range)
    tl.store(out + offsets, total, mask=in_range)


@triton.jit
def softmax(x, out, row_stride, n_columns, BLOCK: tl.constexpr):
    """Compute the softmax of each row, with one row of at most BLOCK columns per program."""
    row_start = tl.program_id(0).to(tl.int64) * row_stride
    columns = tl.arange(0, BLOCK)
    in_row = columns < n_columns
    row = tl.load(x + row_start + columns, mask=in_row, other=-float("inf")).to(tl.float32)
    numerator = tl.exp(row - tl.max(row, axis=0))
    result = numerator / tl.sum(numerator, axis=0)
    tl.store(out + row_start + columns, result.to(out.dtype.element_ty), mask=in_row)


@triton.jit
def layer_norm(x, out, weight, bias, row_stride, n_columns, epsilon, BLOCK: tl.constexpr):
    """Normalize, scale and shift each row, with one row of at most BLOCK columns per program."""
    row_start = tl.program_id(0).to(tl.int64) * row_stride
    columns = tl.arange(0, BLOCK)
    in_row = columns < n_columns
    row = tl.load(x + row_start + columns, mask=in_row, other=0.0).to(tl.float32)
    mean = tl.sum(row, axis=0) / n_columns
    centered = tl.where(in_row, row - mean, 0.0)
    variance = tl.sum(centered * centered, axis=0) / n_columns
    scale = tl.load(weight + columns, mask=in_row, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=in_row, other=0.0).to(tl.float32)
    result = centered * tl.rsqrt(variance + epsilon) * scale + shift
    tl.store(out + row_start + columns, result.to(out.dtype.element_ty), mask=in_row)


@triton.jit
def matmul(
    a,
    b,
    c,
    M,
    N,
    K,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """Compute `c = a @ b`, row-major and dense, with a tile of BLOCK_M x BLOCK_N per program."""
    # Programs that run at the same time share rows of a and columns of b, which stay in L2.
    program = tl.program_id(0)
    programs_in_group = GROUP_M * tl.cdiv(N, BLOCK_N)
    first_m = program // programs_in_group * GROUP_M
    group_rows = min(tl.cdiv(M, BLOCK_M) - first_m, GROUP_M)
    tile_m = first_m + program % programs_in_group % group_rows
    tile_n = program % programs_in_group // group_rows

    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    # Indices wrap around at the edge instead of being masked: the surplus results are not stored.
    a_tile = a + (rows % M)[:, None] * K + inner[None, :]
    b_tile = b + inner[:, None] * N + (columns % N)[None, :]
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k in range(0, K, BLOCK_K):
        a_block = tl.load(a_tile, mask=inner[None, :] < K - k, other=0.0)
        b_block = tl.load(b_tile, mask=inner[:, None] < K - k, other=0.0)
        accumulator = tl.dot(a_block, b_block, accumulator)
        a_tile += BLOCK_K
        b_tile += BLOCK_K * N

    c_tile = c + rows[:, None] * N + columns[None, :]
    in_range = (rows[:, None] < M) & (columns[None, :] < N)
    tl.store(c_tile, accumulator.to(c.dtype.element_ty), mask=in_range)


@triton.jit
def attention(
    q,
    k,
    v,
    out,
    scale,
    length,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
):
    """Compute attention in one pass over the keys, as FlashAttention-2 does.

    The tensors are dense, [batch * heads, length, HEAD_DIM]. A program takes BLOCK_M queries of one
    head, program_id(1), and keeps their running maximum and denominator.
    """
    head_start = tl.program_id(1).to(tl.int64) * length * HEAD_DIM
    queries = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, HEAD_DIM)
    query_tile = head_start + queries[:, None] * HEAD_DIM + dims[None, :]
    is_query = queries[:, None] < length
    q_block = tl.load(q + query_tile, mask=is_query, other=0.0)

    maximum = tl.full((BLOCK_M,), -float("inf"), dtype=tl.float32)
    denominator = tl.zeros((BLOCK_M,), dtype=tl.float32)
    accumulator = tl.zeros((BLOCK_M, HEAD_DIM), dtype=tl.float32)
    exponent_scale = scale * 1.4426950408889634  # log2(e): exp2 is cheaper than exp
    end = length
    if CAUSAL:
        end = min(length, (tl.program_id(0) + 1) * BLOCK_M)
    for start in range(0, end, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        key_tile = head_start + keys[:, None] * HEAD_DIM + dims[None, :]
        is_key = keys[:, None] < length
        k_block = tl.load(k + key_tile, mask=is_key, other=0.0)
        scores = tl.dot(q_block, tl.trans(k_block)) * exponent_scale
        is_seen = keys[None, :] < length
        if CAUSAL:
            is_seen = is_seen & (keys[None, :] <= queries[:, None])
        scores = tl.where(is_seen, scores, -float("inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_maximum[:, None])
        correction = tl.exp2(maximum - new_maximum)
        denominator = denominator * correction + tl.sum(weights, axis=1)
        v_block = tl.load(v + key_tile, mask=is_key, other=0.0)
        accumulator = accumulator * correction[:, None]
        accumulator = tl.dot(weights.to(v_block.dtype), v_block, accumulator)
        maximum = new_maximum

    result = accumulator / denominator[:, None]
    tl.store(out + query_tile, result.to(out.dtype.element_ty), mask=is_query)
