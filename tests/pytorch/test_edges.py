"""What a review found, and what only other machines or versions show."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compilepool import CompilePool
from compilepool.integrations.torch import status_reports
from tests.proc import wait_until
from tests.pytorch.inductor_program import run_program


def test_a_kernel_for_an_amd_gpu_compiles_in_a_worker(tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text(
        "import triton, triton.language as tl\n"
        "from triton.backends.compiler import GPUTarget\n"
        "@triton.jit\n"
        "def copy(source, target, n, BLOCK: tl.constexpr):\n"
        "    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)\n"
        "    tl.store(target + i, tl.load(source + i, i < n), i < n)\n"
        "def compile():\n"
        "    types = {'source': '*fp32', 'target': '*fp32', 'n': 'i32'}\n"
        "    src = triton.compiler.ASTSource(copy, types | {'BLOCK': 'constexpr'}, {'BLOCK': 64})\n"
        "    return set(triton.compile(src, target=GPUTarget('hip', 'gfx942', 64)).asm)\n"
    )
    run_program(
        """
        import sys
        sys.path.insert(0, os.getcwd())
        integration.install(max_workers=1)
        import kernels
        from torch._inductor.async_compile import AsyncCompile
        job = AsyncCompile.process_pool().pool.submit(kernels.compile)
        assert "hsaco" in job.result(60)
        phases = [phase.name for phase in job.record.phases]
        assert phases[0] == "compile" and "lld" in phases, phases
        """,
        tmp_path,
    )


def test_an_installation_that_fails_changes_nothing(tmp_path: Path) -> None:
    run_program(
        """
        import torch._inductor.async_compile as a
        original = a.AsyncCompile.__dict__["process_pool"]
        for installed in (False, True):
            before = integration.current_pool(), a.AsyncCompile.__dict__["process_pool"]
            try:
                integration.install(timeout=-1)
            except ValueError:
                pass
            assert (integration.current_pool(), a.AsyncCompile.__dict__["process_pool"]) == before
            if not installed:
                assert before[1] is original
                integration.install(max_workers=1)
        """,
        tmp_path,
    )


def test_a_pool_whose_preload_fails_is_one_that_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise ImportError('no licence')\n")
    run_program(
        """
        import sys
        sys.path.insert(0, os.getcwd())
        integration.install(preload=["broken"])
        from torch._inductor.async_compile import AsyncCompile
        try:
            AsyncCompile.wait_pool_ready(60)
        except RuntimeError as error:
            assert "no licence" in str(error), error
        else:
            raise AssertionError
        """,
        tmp_path,
    )


def test_in_a_forked_child_the_future_of_a_kernel_ends(tmp_path: Path) -> None:
    run_program(
        """
        import operator
        integration.install(max_workers=1)
        from tests.proc import wait_until
        from torch._inductor.async_compile import AsyncCompile
        gate = Path.cwd() / "gate"
        def wait():
            assert wait_until(gate.exists)
        future = AsyncCompile.process_pool().submit(wait)
        if child := os.fork():
            assert os.waitpid(child, 0) == (child, 0)
            gate.touch()
            assert future.result(60) is None
        else:
            code = 1
            try:
                future.result(60)
            except RuntimeError as error:
                code = 0 if "belongs to the process" in str(error) else 2
            finally:
                os._exit(code)
        """,
        tmp_path,
    )


def test_what_is_compiled_here_leaves_the_environment_as_it_is(tmp_path: Path) -> None:
    run_program(
        """
        import ctypes
        def crash():
            ctypes.string_at(0)
        integration.install(
            initializer=in_backend, initargs=("cumsum", crash), on_crash="in_process")
        import torch
        from torch._inductor.async_compile import AsyncCompile
        use = AsyncCompile._wait_futures
        def wait_futures(self, scope):
            os.environ["TRITON_CACHE_DIR"] = "/of/the/program"  # after the kernel was submitted
            use(self, scope)
        AsyncCompile._wait_futures = wait_futures
        compile_for_gpu(cumsum)
        assert os.environ["TRITON_CACHE_DIR"] == "/of/the/program"
        """,
        tmp_path,
    )


def test_a_plain_pool_that_preloads_torch_forks_while_ours_is_switched_on(tmp_path: Path) -> None:
    run_program(
        """
        import warnings
        from compilepool import CompilePool
        with CompilePool(1, preload=["torch"]) as pool:
            server = pool.submit(os.getppid).result(60)
            assert Path(f"/proc/{server}/comm").read_text() == "cp-forkserver\\n"
            assert len(os.listdir(f"/proc/{server}/task")) == 1
            assert pool.stats().memory.fork_server > 50 << 20  # it is there that torch is
        """,
        tmp_path,
        prelude="import os\nfrom pathlib import Path\n",
        env={"COMPILEPOOL_TORCH": "1"},
    )


def test_only_the_program_itself_writes_the_trace(tmp_path: Path) -> None:
    options = json.dumps({"trace": str(tmp_path / "trace.json"), "max_workers": 1})
    run_program(
        """
        import torch
        import compilepool.integrations.torch as integration
        assert integration.current_pool().wait_ready(60)
        """,
        tmp_path,
        prelude="",
        env={
            "COMPILEPOOL_TORCH": "1",
            "COMPILEPOOL_TORCH_OPTIONS": options,
            "COMPILEPOOL_TORCH_PID": str(os.getpid()),  # of another process
        },
    )
    (trace,) = tmp_path.glob("trace.json*")
    assert trace.name.removeprefix("trace.json.").isdecimal()


def test_a_pool_that_nobody_asks_for_goes_to_sleep(tmp_path: Path) -> None:
    run_program(
        """
        from compilepool.integrations.torch.takeover import installation
        from tests.proc import descendants, wait_until
        installation._UNUSED_S = 0.1
        integration.install()
        assert wait_until(lambda: integration.current_pool().stats().is_quiesced)
        assert wait_until(lambda: len(descendants(os.getpid())) == 1)
        from torch._inductor.async_compile import AsyncCompile
        assert AsyncCompile.process_pool().submit(max, 1, 2).result(60) == 2
        """,
        tmp_path,
    )


def nap(gate: Path) -> None:
    wait_until(gate.exists)


def test_jobs_that_take_long_are_in_the_structured_trace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    artifacts: list[dict[str, Any]] = []

    def trace_structured(kind: str, **of: Any) -> None:
        assert kind == "artifact"
        assert of["metadata_fn"]()["name"] == "compile_worker_status"
        artifacts.append(json.loads(of["payload_fn"]()))

    settings = SimpleNamespace(compile_worker_watchdog_interval_seconds=0.05)
    monkeypatch.setattr(status_reports, "config", settings)
    gate = tmp_path / "gate"
    with CompilePool(1) as pool:
        reports = status_reports.StatusReports(pool, trace_structured)
        running, waiting = (pool.options(name=n).submit(nap, gate) for n in ("runs", "waits"))
        reports.job_submitted(running)
        reports.job_submitted(waiting)
        expected = {("runs", "running"), ("waits", "queued")}
        assert wait_until(lambda: {(a["name"], a["phase"]) for a in artifacts} >= expected)
        gate.touch()
        running.result()
        pids = {a["worker_pid"] for a in artifacts if a["phase"] == "running"}
        assert pids == {running.record.worker_pid}
        reports.close()
