"""Programs that compile, each in an interpreter of its own: torch can be imported only once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

PATIENCE_S = 90.0
ROOT = Path(__file__).parent.parent.parent

# Kernels are compiled for a GPU that is not there. `in_backend` is an initializer for workers: it
# has `what` called, in a worker, just before ptxas is, for kernels of a certain name.
FAKE_GPU = """
import os, time
from pathlib import Path

import compilepool.integrations.torch as integration
from compilepool import CompilePoolError

def softmax(x):
    return x.softmax(-1)

def cumsum(x):
    return x.cumsum(-1)

def many(x):
    return x.softmax(-1) + x.cumsum(-1), x.sum(0), x.sin() * x.exp(), x.T.amax(-1)

def in_backend(name, what):
    from triton.backends.nvidia.compiler import CUDABackend
    make_cubin = CUDABackend.make_cubin
    def changed(self, src, metadata, *args):
        if name in metadata["name"]:
            what()
        return make_cubin(self, src, metadata, *args)
    CUDABackend.make_cubin = changed

def compile_for_gpu(function, index=0):
    from tests.pytorch import fake_gpu
    fake_gpu.plug_in(index)
    import torch
    torch._inductor.config.fx_graph_cache = False
    import torch._inductor.async_compile as async_compile
    async_compile.AsyncCompile.wait_pool_ready()
    fake_gpu.compile_for(function, (64, 300))
"""


def run_program(
    program: str,
    tmp_path: Path,
    *,
    prelude: str = FAKE_GPU,
    command: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it, with caches that are empty, and expect that it succeeds.

    Args:
        program: its code.
        tmp_path: for its caches, and for files of its own: it is the working directory.
        prelude: code that comes before it.
        command: what runs the interpreter.
        env: additional environment variables.
    """
    done = subprocess.run(
        [*command, sys.executable, "-W", "ignore", "-c", prelude + textwrap.dedent(program)],
        env={**os.environ, **program_env(tmp_path), **(env or {})},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def program_env(tmp_path: Path) -> dict[str, str]:
    """The environment variables of such a program."""
    return {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),  # Inductor leaves things there
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
    }
