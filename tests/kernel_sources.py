"""Sources of Triton kernels, as Inductor writes them."""

from __future__ import annotations

_HEAD = """\

import triton
import triton.language as tl

from torch._inductor.runtime import triton_helpers, triton_heuristics
from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math
from torch._inductor.runtime.hints import AutotuneHint, ReductionHint, TileHint, DeviceProperties
triton_helpers.set_driver_to_gpu()

"""

_DEVICE = (
    "'device': DeviceProperties(type='cuda', index={index}, multi_processor_count=132, cc=90,"
    " major=9, regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048,"
    " max_threads_per_block=1024, warp_size=32), 'constants': {{}}"
)

_DIVISIBLE = "'configs': [{{(0,): [['tt.divisibility', 16]], (1,): [['tt.divisibility', 16]]}}]"

_META = (
    "'grid_type': 'Grid1D', 'kernel_name': 'sine', 'mutated_arg_names': [], 'no_x_dim': False,"
    " 'num_load': 1, 'num_store': 1, 'num_reduction': 0, 'autotune_local_cache': True,"
    " 'autotune_pointwise': True, 'max_autotune_pointwise': False"
)

_SINE = (
    _HEAD
    + f"""\
@triton_heuristics.pointwise(
    size_hints={{{{'x': 4194304}}}},
    filename=__file__,
    triton_meta={{{{'signature': {{{{'in_ptr0': '*fp32', 'out_ptr0': '*fp32', 'xnumel': 'i32', \
'XBLOCK': 'constexpr'}}}}, {_DEVICE}, {_DIVISIBLE}}}}},
    inductor_meta={{{{{_META}}}}},
    min_elem_per_thread=0
)
@triton.jit
def sine(in_ptr0, out_ptr0, xnumel, XBLOCK : tl.constexpr):
    xoffset = tl.program_id(0) * XBLOCK
    xindex = xoffset + tl.arange(0, XBLOCK)[:]
    xmask = xindex < xnumel
    tmp0 = tl.load(in_ptr0 + (xindex), xmask)
    tmp1 = tl_math.sin(tmp0)
    tl.store(out_ptr0 + (xindex), tmp1, xmask)
"""
)

_DOUBLE = (
    _HEAD
    + f"""\
@triton_heuristics.user_autotune(
    configs=[{{{{'num_warps': 4, 'num_stages': 2}}}}],
    inductor_meta={{{{{_META}}}}},
    triton_meta={{{{'signature': {{{{'x': '*fp32', 'y': '*fp32'}}}}, {_DEVICE}, {_DIVISIBLE}}}}},
    filename=__file__,
    custom_kernel=True,
)
@triton.jit
def double(x, y):
    '''For people, not for compilers: 'device': DeviceProperties(type='cuda', index=5, cc=90).'''
    at = tl.arange(0, 64)
    tl.store(y + at, 2 * tl.load(x + at))
"""
)


def sine(index: int | None = 0) -> str:
    """The source of a kernel `sine`, which has two configurations to choose from."""
    return _SINE.format(index=index)


def double(index: int | None = 0) -> str:
    """The source of a kernel `double`, which a user has written. Its docstring looks like code."""
    return _DOUBLE.format(index=index)
