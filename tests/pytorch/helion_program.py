"""A program whose Helion kernel is precompiled for a GPU that is not there. Tests run it.

Helion itself generates the kernel of each configuration, and waits for them. Triton compiles them.
Nothing is launched, so nothing is measured.

    python -m tests.pytorch.helion_program FOLDER

It needs TRITON_CACHE_DIR, and prints as JSON what `test_helion.py` checks.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import helion
import helion.language as hl
import torch
from helion.autotuner import precompile_future
from helion.autotuner.logger import AutotuningLogger
from helion.autotuner.precompile_future import PrecompileContext, PrecompileFuture
from torch._subclasses import FakeTensorMode
from triton import knobs

from compilepool import PoolClosed
from compilepool.integrations.helion import current_pool, install, uninstall
from tests.pytorch import fake_gpu

fake_gpu.plug_in()

GOOD, ABORTS, FAILS, HANGS = (32, 512), 64, 128, 256
"""The size of a configuration's blocks decides how it fares. LLVM aborts if an operand has another
type than its constraint, and exits if it does not know the constraint.
"""

PTXAS = """\
#!/bin/sh
for argument; do
    if [ -f "$argument" ] && grep -q "HANG$" "$argument"; then
        sleep 1000 &
        echo $! > {pid}
        wait
    fi
done
exec {ptxas} "$@"
"""


@helion.kernel(config=helion.Config(block_sizes=[32]))  # type: ignore[untyped-decorator]
def move(x: torch.Tensor) -> torch.Tensor:
    """Copies a tensor, by assembly that depends on the configuration."""
    out = torch.empty_like(x)
    for tile in hl.tile(x.size(0)):
        value = x[tile]
        out[tile] = hl.inline_triton(
            "tl.inline_asm_elementwise("
            "'mov.b32 $0, $1; // HANG' if {0}.shape[0] == 256 else 'mov.b32 $0, $1;',"
            " '=r,=r' if {0}.shape[0] == 64 else '=r,l' if {0}.shape[0] == 128 else '=r,r',"
            " [{0}], dtype=tl.float32, is_pure=True, pack=1)",
            args=(value,),
            output_like=value,
        )
    return out


class Tuner:
    """As much of Helion's autotuner as needs no GPU: its precompile step.

    Args:
        folder: where results may be written.
    """

    def __init__(self, folder: Path) -> None:
        with FakeTensorMode(allow_non_fake_inputs=True):
            self._kernel: Any = move.bind((torch.empty(4096, device="cuda"),))
        self._folder = folder
        self._tensors = (torch.empty(4096),)
        self._log = AutotuningLogger(self._kernel.settings)

    def precompile(self, sizes: Iterable[int]) -> list[PrecompileFuture]:
        """Have Helion compile configurations, and wait for them."""
        futures = []
        for size in sizes:
            settings = copy.copy(self._kernel.settings)
            settings.autotune_compile_timeout = 2 if size == HANGS else 600
            context = PrecompileContext(settings, self._log, self._kernel, self._tensors, jobs=99)
            config = helion.Config(block_sizes=[size])
            function = self._kernel.compile_config(config)
            path = str(self._folder / f"{size}.result")
            create = PrecompileFuture.create
            futures.append(create(context, config, function, self._tensors, path, None))
        PrecompileFuture.wait_for_all(futures)
        return futures

    def cache_hits(self, sizes: Iterable[int]) -> list[bool]:
        """Whether Triton has these in its cache, as this process looks for them."""
        hits: list[bool] = []
        knobs.compilation.listener = lambda **told: hits.append(told["cache_hit"])
        for size in sizes:
            config = helion.Config(block_sizes=[size])
            function = self._kernel.compile_config(config)
            prepare = precompile_future._prepare_precompiler_for_fork
            compile_it = prepare(function, self._tensors, config, self._kernel, "", self._log)
            if compile_it is None:
                hits.append(True)
            else:
                compile_it()
        knobs.compilation.listener = None
        return hits


def main(folder: Path) -> None:
    """Precompile good and bad configurations in a pool, and one as Helion itself does."""
    pid_file = folder / "pid"
    wrapper = folder / "ptxas"
    wrapper.write_text(PTXAS.format(pid=pid_file, ptxas=knobs.nvidia.ptxas.path))
    wrapper.chmod(0o700)
    os.environ["TRITON_PTXAS_PATH"] = str(wrapper)
    tuner = Tuner(folder)
    install(max_workers=2)
    pool = current_pool()
    assert pool is not None
    futures = tuner.precompile([GOOD[0], ABORTS, FAILS, HANGS, GOOD[1]])
    outcomes = [future.failure_reason for future in futures]
    times = [future.elapsed for future in futures]
    hits = tuner.cache_hits(GOOD)
    pool.shutdown()
    try:
        tuner.precompile([2048])
        without_pool = "compiled"
    except PoolClosed as error:
        without_pool = type(error).__name__
    uninstall()
    (own,) = tuner.precompile([1024])
    answer = {
        "outcomes": outcomes,
        "types": sorted({type(future).__name__ for future in futures}),
        "have_times": all(time > 0 for time in times),
        "grandchild": int(pid_file.read_text()),
        "hits": hits,
        "without_pool": without_pool,
        "own": [type(own).__name__, own.failure_reason],
        "pool": current_pool() is None,
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
