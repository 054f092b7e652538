"""Jobs of Inductor's that compile no Triton kernel, and jobs whose outcome cannot be sent back."""

from __future__ import annotations

import importlib.util
import json
import operator
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.compile_worker.subproc_pool import SubprocException

import compilepool
from compilepool import WorkerCrashed
from compilepool.integrations.torch.compile_worker.subproc_pool import SubprocPickler, SubprocPool
from compilepool.integrations.torch.kernel_future import kernel_name, returns_kernel
from tests.pytorch.inductor_program import PATIENCE_S, run_program

needs_nvgemm = pytest.mark.skipif(
    not hasattr(AsyncCompile, "nvgemm_precompile"), reason="this torch has no such jobs"
)
needs_cutlass = pytest.mark.skipif(
    importlib.util.find_spec("cutlass") is None, reason="nvidia-cutlass-dsl is not installed"
)


def test_jobs_of_kernels_in_python_have_the_names_of_the_kernels(tmp_path: Path) -> None:
    """CuteDSL and NVGEMM as Inductor submits them; FlyDSL's, which needs ROCm, by hand."""
    run_program(
        """
        import compilepool.integrations.torch as integration
        integration.install(trace="trace.json", max_workers=2)
        from torch._inductor.async_compile import AsyncCompile
        from torch._inductor.runtime.compile_tasks import _worker_compile_pycodecache_kernel
        AsyncCompile.wait_pool_ready()
        source = "def {}_main(*args, **more):\\n    return 7\\n"
        made = [
            getattr(AsyncCompile(), method)(method, source.format(method))
            for method in ("cutedsl", "nv_universal_gemm")
        ]
        by_hand = AsyncCompile.process_pool().submit(
            _worker_compile_pycodecache_kernel, "flydsl", "def flydsl_main(): ...", "main", {})
        assert [kernel.result().run(stream=0) for kernel in made] == [7, 7]
        key, path, elapsed_us = by_hand.result(60)
        assert open(path).read() == "def flydsl_main(): ..."
        """,
        tmp_path,
        prelude="",
    )
    events = json.loads((tmp_path / "trace.json").read_text())
    names = {event["name"] for event in events if event.get("cat") == "job"}
    assert names == {"cutedsl", "nv_universal_gemm", "flydsl"}


@needs_nvgemm
def test_a_job_of_nvgemms_autotuning_fails_by_its_name_and_is_not_compiled_here(
    tmp_path: Path,
) -> None:
    run_program(
        """
        import os
        import compilepool.integrations.torch as integration
        integration.install(max_workers=1, on_crash="in_process", initializer=make_it_crash)
        from torch._inductor.async_compile import AsyncCompile
        from compilepool.integrations.torch.kernel_future import KernelFailed
        assert AsyncCompile.wait_process_pool_ready()
        job = AsyncCompile().nvgemm_precompile("my_gemm", "GEMM", "float32", (), None, None)
        try:
            job.result(60)
        except KernelFailed as failure:
            assert failure.name == "my_gemm", failure
            assert "SIGSEGV" in str(failure), failure
        else:
            raise AssertionError
        """,
        tmp_path,
        prelude="""
def make_it_crash():
    from torch._inductor.codegen.nv_universal_gemm import nv_universal_gemm_kernel as kernels
    from torch._inductor.runtime import compile_tasks
    def crash(extra_env):
        import ctypes
        ctypes.string_at(0)
    compile_tasks._apply_subprocess_env_and_clear_caches = crash
""",
    )


def _compile_in_worker(*_args: object) -> None:
    """FlexGEMM's has this name."""


def test_a_job_of_flex_gemm_has_the_name_of_what_it_makes() -> None:
    module = "torch._vendor.quack.gemm_runtime.host"
    recipe: tuple[object, ...] = ("90", "sm_90a", {}, module, "_compile_gemm_epi", "key")
    sha = "0123456789abcdef" * 4
    name = kernel_name(_compile_in_worker, (*recipe, f"/cache/fingerprint/{sha}.o", "payloads"))
    assert name == "gemm_epi_0123456789ab"
    assert not returns_kernel(_compile_in_worker)
    for other in (recipe, (*recipe, None), (None,) * 8, ()):
        assert kernel_name(_compile_in_worker, other) is None


@needs_cutlass
def test_flex_gemm_submits_its_jobs_as_we_expect(tmp_path: Path) -> None:
    run_program(
        """
        from types import SimpleNamespace
        import compilepool.integrations.torch as integration
        integration.install(trace="trace.json", max_workers=1)
        from torch._inductor.kernel.flex_gemm import compile_pool
        from torch._vendor.quack.gemm_runtime.host import _compile_gemm_epi
        assert compile_pool.workers_ready()
        pool, sha = compile_pool.InductorCompilePool("no recipe"), "0123456789abcdef" * 4
        key = SimpleNamespace(semantic_digest="digest")
        assert pool.submit(sha, _compile_gemm_epi, (key,), {}, f"/nowhere/print/{sha}.o")
        assert not pool.wait(sha)
        assert "'str' object has no attribute 'module_key'" in pool.poll(sha)[1], pool.poll(sha)
        """,
        tmp_path,
        prelude="",
    )
    events = json.loads((tmp_path / "trace.json").read_text())
    names = {event["name"] for event in events if event.get("cat") == "job"}
    assert names == {"gemm_epi_0123456789ab"}


@pytest.mark.skipif(
    not hasattr(AsyncCompile, "wait_process_pool_ready"), reason="this torch does not wait"
)
@pytest.mark.parametrize("can_start", [True, False])
def test_inductor_learns_whether_the_pool_is_usable(can_start: bool, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ImportError('no licence')\n")
    run_program(
        f"""
        import os, sys
        sys.path.insert(0, os.getcwd())
        import compilepool.integrations.torch as integration
        integration.install(max_workers=1, preload={[] if can_start else ["broken"]})
        from torch._inductor.async_compile import AsyncCompile
        assert AsyncCompile.wait_process_pool_ready({PATIENCE_S}) == {can_start}
        """,
        tmp_path,
        prelude="",
    )


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("not to be sent")
        self.lock = threading.Lock()


class BadNews:
    def __reduce__(self) -> tuple[object, ...]:
        return _fail_to_load, ()


def _fail_to_load() -> None:
    raise ValueError("nobody can load this")


def return_a_lock() -> Any:
    return threading.Lock()


def raise_unpicklable() -> None:
    raise Unpicklable


def return_bad_news() -> BadNews:
    return BadNews()


class DumbInWorkers(SubprocPickler):  # type: ignore[misc] # torch is not typed
    """Cannot even say in a worker what has gone wrong there."""

    def dumps(self, obj: object) -> bytes:
        if not compilepool.in_toplevel_process() and obj != 101:
            raise MemoryError("nothing can be said")
        return pickle.dumps(obj)


@pytest.fixture(params=[None, DumbInWorkers])
def pool(request: pytest.FixtureRequest) -> Iterator[SubprocPool]:
    pool = SubprocPool(1, request.param and request.param())
    yield pool
    pool.shutdown()


@pytest.mark.parametrize(
    "job",
    [return_a_lock, raise_unpicklable, sys.exit, return_bad_news],
    ids=lambda job: job.__name__,
)
def test_what_cannot_be_sent_back_fails_its_own_job(
    pool: SubprocPool, job: Callable[[], object]
) -> None:
    """torch 2.15 has `MsgHeader.JOB_ERROR` for it; before, such a job hung, or broke the pool."""
    failing = pool.submit(job)
    good = pool.submit(operator.add, 100, 1)
    with pytest.raises(SubprocException) as caught:
        failing.result(PATIENCE_S)
    assert not isinstance(caught.value.error, WorkerCrashed)
    assert good.result(PATIENCE_S) == 101
    assert pool.running
