"""The slowest kernels of `compilepool demo`, compiled by Triton on two workers.

The client has imported Triton, as a program that compiles with it has. The fork server has, too,
for pools that can be told what to preload.
"""

from __future__ import annotations

import importlib.util

from benchmarks.figures._compiling import METRICS, compile_in
from benchmarks.metric import Figure, Scale, Value
from benchmarks.peers import make

KERNELS = 24
PRELOAD = ("compilepool.cli.demo.kernels", "compilepool.cli.demo.compilation")

FIGURE = Figure("24 Triton kernels", METRICS, rounds=3)


def missing() -> str:
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


def measure(peer: str, scale: Scale) -> dict[str, Value]:
    import compilepool.cli.demo.kernels  # noqa: F401
    from compilepool.cli.demo.compilation import compile_variant
    from compilepool.cli.demo.variants import VARIANTS

    # Large kernels go first: a long job at the end would leave the other worker idle.
    variants = VARIANTS[: -KERNELS - 1 : -1] if not scale.quick else VARIANTS[1:5]
    calls = [(compile_variant, variant) for variant in variants]
    warm_up = (compile_variant, VARIANTS[0])
    return compile_in(lambda: make(peer, 2, PRELOAD), calls, warm_up)
