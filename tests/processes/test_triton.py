"""Triton's kernels compile in workers, for a GPU that need not be there."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from compilepool import CompilePool, JobTimeout, WorkerCrashed
from tests.proc import PATIENCE_S

if find_spec("triton") is None:
    pytest.skip("the extra `triton` is not installed", allow_module_level=True)

import triton
import triton.language as tl

from compilepool.cli.demo import kernels as demo
from compilepool.cli.demo.variants import VARIANTS
from compilepool.integrations.triton import (
    PRELOAD,
    AsyncCompileExecutor,
    NoConfigurationLeft,
    compile_many,
    crash_proof,
)
from tests.programs import triton_kernels
from tests.programs.triton_kernels import TARGET, Listener, Pointer, fragile, scale

STAGES = ["cache look-up", "ir_initialization", "ttir", "ttgir", "llir", "ptx", "cubin"]


@pytest.fixture(autouse=True)
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Triton compiles for an H100, into an empty cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    with triton_kernels.target_without_gpu():
        yield
    for kernel in (scale, fragile):
        kernel.device_caches.clear()


@pytest.fixture
def workers() -> Iterator[CompilePool]:
    with CompilePool(2, preload=[PRELOAD]) as pool:
        yield pool


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Listener:
    listener = Listener()
    monkeypatch.setattr(triton.knobs.compilation, "listener", listener)
    return listener


def scale_all() -> list[Any]:
    """A kernel that calls another, of pointers, types and constants; `size` is not specialized."""
    return [
        scale.warmup(
            Pointer(dtype), Pointer(dtype), size, grid=(1,), dtype=dtype, BLOCK=block, num_warps=8
        )
        for dtype in (tl.float16, tl.float32)
        for size in (16, 17)
        for block in (128, 256)
    ]


def cubins(kernels: list[Any]) -> list[bytes]:
    return [kernel.asm["cubin"] for kernel in kernels]


def test_a_program_finds_what_workers_have_compiled(
    workers: CompilePool, heard: Listener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.wait_ready(PATIENCE_S)
    # What the program sets later holds for the workers, too.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "later"))
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "1")
    with triton.AsyncCompileMode(AsyncCompileExecutor(workers)) as mode:
        scale_all()
        futures = list(mode.raw_futures)
    in_workers = scale_all()
    assert (heard.hits, heard.compiled) == (["scale"] * 4, [])
    for future in futures:
        assert [phase.name for phase in future.job.record.phases] == STAGES
        times = future.job.result().times
        assert [name for name, _ in times.lowering_stages] == STAGES[2:]
    assert futures[0].job.name.startswith("scale[dtype=fp16, BLOCK=128, num_warps=8")

    scale.device_caches.clear()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "of the program"))
    here = scale_all()
    assert heard.compiled == ["scale"] * 4
    assert cubins(here) == cubins(in_workers)


def test_what_is_in_the_cache_needs_no_worker(workers: CompilePool, heard: Listener) -> None:
    scale_all()
    scale.device_caches.clear()
    with triton.AsyncCompileMode(AsyncCompileExecutor(workers)) as mode:
        kernels = scale_all()
        assert [future.job for future in mode.raw_futures] == [None] * 4
    assert (len(heard.compiled), len(heard.hits)) == (4, 4)
    assert cubins(kernels)[0].startswith(b"\x7fELF")
    assert workers.stats().submitted == 0


def test_a_kernel_that_aborts_llvm_leaves_the_others_and_is_named(
    workers: CompilePool, heard: Listener
) -> None:
    executor = AsyncCompileExecutor(workers)
    with triton.AsyncCompileMode(executor, ignore_errors=True) as mode:
        for block in (32, 64, 128):
            fragile.warmup(Pointer(tl.float32), grid=(1,), BLOCK=block, UNROLL=1)
        _, bad, _ = mode.raw_futures
    assert heard.hits == ["fragile"] * 2
    error = bad.exception(PATIENCE_S)
    assert isinstance(error, WorkerCrashed)
    assert "job 'fragile[BLOCK=64, UNROLL=1, num_warps=4" in str(error)
    assert "LLVM ERROR: Cannot select" in error.log
    assert error.phase == "ptx"
    assert heard.compiled == []


def test_the_kernels_of_the_demo_are_the_same_ahead_of_time(
    workers: CompilePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = [
        (
            getattr(demo, variant.kernel),
            {
                name: f"{type_}:16" if type_ == "i32" or type_.startswith("*") else type_
                for name, type_ in variant.arguments.items()
            },
            variant.constants,
            {"num_warps": variant.num_warps, "num_stages": variant.num_stages},
        )
        for variant in (VARIANTS[0], VARIANTS[5], VARIANTS[8], VARIANTS[11])
    ]
    futures = compile_many(todo, target=TARGET, pool=workers)
    in_workers = cubins([future.result(PATIENCE_S) for future in futures])
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "of the program"))
    from compilepool.cli.demo.compilation import compile_variant

    monkeypatch.setattr(triton.knobs.runtime, "add_stages_inspection_hook", None)
    here = [
        compile_variant(variant).cubin
        for variant in (VARIANTS[0], VARIANTS[5], VARIANTS[8], VARIANTS[11])
    ]
    assert in_workers == here


def test_wrong_kernels_are_refused_before_the_pool_starts() -> None:
    with pytest.raises(ValueError, match="without a type or a value: UNROLL; unknown: SIZE"):
        compile_many([(fragile, {"x": "*fp32"}, {"BLOCK": 32, "SIZE": 1}, {})], target=TARGET)
    with pytest.raises(TypeError, match=r"needs what @triton\.jit has made"):
        compile_many([(len, {}, {}, {})], target=TARGET)
    with pytest.raises(TypeError, match=r"needs what @triton\.autotune has made"):
        crash_proof(CompilePool(1))(fragile)
    with pytest.raises(TypeError, match=r"only what triton\.AsyncCompileMode submits"):
        AsyncCompileExecutor(CompilePool(1)).submit(len)


def measure(call: Any, quantiles: Any) -> list[float]:
    """Stands for a measurement, which takes a GPU."""
    raise AssertionError("there is no GPU")


def tuned(workers: CompilePool, configs: list[Any], **limits: Any) -> Any:
    kernel = triton.autotune(configs, key=[], do_bench=measure)(fragile)
    return crash_proof(workers, **limits)(kernel)


def test_autotune_leaves_out_what_crashes_and_what_takes_too_long(
    workers: CompilePool, heard: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    good = [triton.Config({"BLOCK": block, "UNROLL": 1}) for block in (32, 128)]
    aborts = triton.Config({"BLOCK": 64, "UNROLL": 1})
    is_slow = triton.Config({"BLOCK": 32, "UNROLL": 20000})
    workers.wait_ready(PATIENCE_S)
    kernel = tuned(workers, [good[0], aborts, good[1], is_slow], timeout=5)
    with caplog.at_level(logging.WARNING):
        compiled = kernel.warmup(Pointer(tl.float32), grid=(1,))
    assert len(compiled) == 2
    assert heard.compiled == []
    assert {config: type(error) for config, error in kernel.left_out.items()} == {
        aborts: WorkerCrashed,
        is_slow: JobTimeout,
    }
    messages = [record.getMessage() for record in caplog.records]
    assert any("is tuned without BLOCK: 64" in message for message in messages)
    assert any("is tuned without BLOCK: 32, UNROLL: 20000" in message for message in messages)


def test_autotune_without_a_configuration_left_says_so(workers: CompilePool) -> None:
    configs = [triton.Config({"BLOCK": 64, "UNROLL": 1}, num_warps=warps) for warps in (2, 4)]
    kernel = tuned(workers, configs)
    with pytest.raises(NoConfigurationLeft, match=r"none of the 2 configurations .* SIGABRT"):
        kernel.warmup(Pointer(tl.float32), grid=(1,))


SCRIPT = """\
import triton, triton.language as tl
from compilepool import CompilePool
from compilepool.integrations.triton import PRELOAD, AsyncCompileExecutor
from tests.programs.triton_kernels import Listener, Pointer, target_without_gpu

@triton.jit
def doubled(value):
    return value + value

@triton.autotune([triton.Config({"BLOCK": block}) for block in (32, 64, 128)], key=[])
@triton.heuristics({"EVEN": lambda arguments: arguments["n"] % 2 == 0})
@triton.jit
def kernel(x, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(x + at, doubled(tl.load(x + at, mask=at < n)), mask=at < n)

heard = triton.knobs.compilation.listener = Listener()
with target_without_gpu(), CompilePool(2, preload=[PRELOAD]) as pool:
    with triton.AsyncCompileMode(AsyncCompileExecutor(pool)):
        kernel.warmup(Pointer(tl.float32), 100, grid=(1,))
print(heard.hits, heard.compiled)
"""


def test_autotuned_kernels_of_a_script(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "-c", "import runpy; runpy.run_path('script.py', run_name='__main__')"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert ended.stderr == ""
    assert ended.stdout == "['kernel', 'kernel', 'kernel'] []\n"
