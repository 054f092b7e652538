"""Inductor compiles in our pool, as its users see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch._inductor import config

from tests.proc import descendants, pids_with_environment, wait_until
from tests.pytorch.inductor_program import FAKE_GPU, PATIENCE_S, program_env, run_program


def test_a_cpu_program_computes_the_same_whether_or_not_a_worker_is_there(tmp_path: Path) -> None:
    run_program(
        """
        from compilepool.integrations.torch import current_pool, install
        install()
        import torch

        def f(x, y):
            return (x.sin() @ y).softmax(-1).sum(0)

        x, y = torch.randn(64, 64), torch.randn(64, 64)
        torch.testing.assert_close(torch.compile(f)(x, y), f(x, y))
        assert current_pool().wait_ready(60)
        """,
        tmp_path,
        prelude="",
    )


def test_each_kernel_is_one_job_of_its_name_with_its_phases(tmp_path: Path) -> None:
    done = run_program(
        """
        integration.install(trace="trace.json")
        import torch
        torch._inductor.config.disable_progress = False
        from torch._inductor.async_compile import AsyncCompile
        triton, sources = AsyncCompile.triton, {}
        def noted(self, name, source, *args, **kwargs):
            sources[source] = name
            return triton(self, name, source, *args, **kwargs)
        AsyncCompile.triton = noted
        compile_for_gpu(many)
        assert len(sources) > 1
        assert integration.current_pool().stats().submitted == len(sources)
        assert AsyncCompile.use_process_pool()
        assert integration.current_pool().stats().submitted == len(sources)
        print(*sources.values())
        """,
        tmp_path,
    )
    events = json.loads((tmp_path / "trace.json").read_text())
    jobs = {event["name"] for event in events if event.get("cat") == "job"}
    assert jobs == set(done.stdout.split())
    phases = {event["name"] for event in events if event.get("cat") == "phase"}
    assert phases == {"cache look-up", "compile", "ptxas"}
    assert "100.0%" in done.stderr  # what torch shows where there is no tqdm


@pytest.mark.parametrize("is_made_late", [False, True])
def test_a_thread_compiles_after_the_end_of_the_main_thread(
    is_made_late: bool, tmp_path: Path
) -> None:
    done = run_program(
        f"""
        import threading
        import torch._inductor.async_compile  # CPython refuses to do so later
        if not {is_made_late}:
            integration.install()
            compile_for_gpu(softmax)
        def go_on():
            threading.main_thread().join()
            if {is_made_late}:
                integration.install()
            compile_for_gpu(many)
            stats = integration.current_pool().stats()
            assert stats.submitted == stats.done > 1, stats
            print("compiled")
        threading.Thread(target=go_on).start()
        """,
        tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "compiled"


def test_a_kernel_that_crashes_the_compiler_is_named_with_a_report(tmp_path: Path) -> None:
    run_program(
        """
        import ctypes
        def crash():
            ctypes.string_at(0)
        integration.install(initializer=in_backend, initargs=("cumsum", crash))
        import torch._inductor.exc
        try:
            compile_for_gpu(many)
        except torch._inductor.exc.InductorError as error:
            text = str(error)
        for part in ("Name=triton_", "cumsum", "SIGSEGV (Segmentation fault)", "native", "python",
                     "in crash", "phase    compile", "replay", "only this job is lost"):
            assert part in text, (part, text)
        compile_for_gpu(softmax)
        assert integration.current_pool().stats().failed == {"WorkerCrashed": 1}
        """,
        tmp_path,
    )


def test_a_crashed_kernel_is_compiled_in_this_process_if_that_is_wanted(tmp_path: Path) -> None:
    done = run_program(
        """
        import ctypes, logging
        logging.basicConfig()
        def crash():
            ctypes.string_at(0)
        integration.install(
            initializer=in_backend, initargs=("cumsum", crash), on_crash="in_process")
        import torch
        compile_for_gpu(many)
        assert integration.current_pool().stats().failed == {"WorkerCrashed": 1}
        """,
        tmp_path,
    )
    assert "in this process: the worker that ran job" in done.stderr


def test_time_and_memory_of_a_kernel_can_be_limited(tmp_path: Path) -> None:
    run_program(
        """
        def take_time():
            time.sleep(1000)
        def take_memory():
            bytearray(2 << 30)
            time.sleep(1000)
        def change():
            in_backend("cumsum", take_time)
            in_backend("softmax", take_memory)
        integration.install(timeout=3, memory_limit="1GiB", initializer=change)
        import torch._inductor.exc
        for function, expected in (cumsum, "3 s"), (softmax, "1 GiB"):
            try:
                compile_for_gpu(function)
            except torch._inductor.exc.InductorError as error:
                assert expected in str(error) and function.__name__ in str(error), error
            else:
                raise AssertionError(expected)
        """,
        tmp_path,
    )


@pytest.mark.skipif(
    not hasattr(config, "compile_worker_wait_timeout"), reason="this torch has no such setting"
)
def test_inductors_own_timeout_holds(tmp_path: Path) -> None:
    run_program(
        """
        def take_time():
            time.sleep(1000)
        integration.install(initializer=in_backend, initargs=("cumsum", take_time))
        import torch._inductor.config as config
        config.compile_worker_wait_timeout = 1
        try:
            compile_for_gpu(cumsum)
        except RuntimeError as error:
            assert "did not complete within 1s" in str(error) and "cumsum" in str(error), error
        else:
            raise AssertionError
        """,
        tmp_path,
    )


def test_the_death_of_the_sidecar_costs_nothing(tmp_path: Path) -> None:
    run_program(
        """
        import threading
        from tests.proc import wait_until
        here = Path.cwd()
        def wait():
            (here / "started").touch()
            assert wait_until((here / "killed").exists)
        integration.install(initializer=in_backend, initargs=("cumsum", wait))
        import torch
        from torch._inductor.async_compile import AsyncCompile
        def kill():
            assert wait_until((here / "started").exists)
            AsyncCompile.process_pool().process.kill()
            (here / "killed").touch()
        killer = threading.Thread(target=kill)
        killer.start()
        compile_for_gpu(many)
        killer.join()
        stats = integration.current_pool().stats()
        assert stats.restarts.supervisor == 1 and not stats.failed, stats
        """,
        tmp_path,
    )


def test_a_pool_that_was_shut_down_is_not_handed_out_again(tmp_path: Path) -> None:
    run_program(
        """
        integration.install()
        import torch
        from torch._inductor.async_compile import AsyncCompile, shutdown_compile_workers
        compile_for_gpu(softmax)
        AsyncCompile.process_pool.cache_clear()
        assert AsyncCompile.process_pool.cache_info() == (0, 0, 1, 0)
        first = AsyncCompile.process_pool()
        assert AsyncCompile.process_pool() is first
        assert AsyncCompile.process_pool.cache_info() == (1, 1, 1, 1)
        assert AsyncCompile.process_pool.cache_parameters() == {"maxsize": 1, "typed": False}
        shutdown_compile_workers()
        assert integration.current_pool() is None
        compile_for_gpu(cumsum)
        second = AsyncCompile.process_pool()
        assert second is not first and integration.current_pool() is second.pool
        assert second.pool.stats().submitted == 1
        second.shutdown()
        assert AsyncCompile.process_pool() not in (first, second)
        """,
        tmp_path,
    )


def test_inductors_own_pool_is_ended_when_ours_comes_and_is_back_when_ours_goes(
    tmp_path: Path,
) -> None:
    run_program(
        """
        import operator
        import torch
        from torch._inductor import async_compile
        from torch._inductor.compile_worker.subproc_pool import SubprocPool
        AsyncCompile = async_compile.AsyncCompile
        original = AsyncCompile.__dict__["process_pool"]
        own = AsyncCompile.process_pool()
        pending = own.submit(operator.add, 1, 2)
        integration.install(max_workers=1)
        assert pending.result(60) == 3
        assert own.process.wait(60) == 0
        pool = AsyncCompile.process_pool()
        assert pool.pool is integration.current_pool() and pool.pool.max_workers == 1
        assert isinstance(pool, async_compile.SubprocPool)
        last = pool.submit(operator.add, 1, 3)
        integration.uninstall()
        assert last.result(0) == 4
        assert integration.current_pool() is None
        assert AsyncCompile.__dict__["process_pool"] is original
        assert async_compile.SubprocPool is SubprocPool
        assert type(AsyncCompile.process_pool()) is SubprocPool
        integration.uninstall()
        """,
        tmp_path,
    )


def test_install_again_with_other_options(tmp_path: Path) -> None:
    run_program(
        """
        integration.install(max_workers=1)
        first = integration.current_pool()
        integration.install(max_workers=2)
        second = integration.current_pool()
        assert first is not second
        import torch
        compile_for_gpu(softmax)
        assert integration.current_pool() is second and second.stats().submitted == 1
        """,
        tmp_path,
    )


def test_as_many_workers_as_inductor_wants(tmp_path: Path) -> None:
    run_program(
        """
        integration.install()
        early = integration.current_pool()
        import torch._inductor.config as config
        config.compile_threads = 3
        compile_for_gpu(softmax)
        assert integration.current_pool() is not early
        assert integration.current_pool().max_workers == 3
        """,
        tmp_path,
    )


def test_without_compile_threads_nothing_is_started(tmp_path: Path) -> None:
    run_program(
        """
        from tests.proc import children
        integration.install()
        import torch
        from torch._inductor.async_compile import AsyncCompile
        AsyncCompile.warm_pool()
        AsyncCompile.wakeup()
        assert not children(os.getpid())
        """,
        tmp_path,
        env={"TORCHINDUCTOR_COMPILE_THREADS": "1"},
    )


def test_a_forked_child_has_a_pool_of_its_own(tmp_path: Path) -> None:
    run_program(
        """
        import operator
        integration.install(max_workers=1)
        import torch
        from torch._inductor.async_compile import AsyncCompile
        pool = AsyncCompile.process_pool()
        assert pool.submit(operator.add, 1, 2).result(60) == 3
        if child := os.fork():
            assert os.waitpid(child, 0) == (child, 0)
            assert AsyncCompile.process_pool() is pool
            assert pool.submit(operator.add, 1, 3).result(60) == 4
        else:
            code = 1
            try:
                own = AsyncCompile.process_pool()
                assert own is not pool
                assert own.submit(operator.add, 1, 4).result(60) == 5
                own.shutdown()
                code = 0
            finally:
                os._exit(code)
        """,
        tmp_path,
    )


def test_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    run_program(
        """
        for options, error in [
            ({"timeout": -1}, ValueError), ({"on_crash": "ignore"}, ValueError),
            ({"no_such_option": 1}, TypeError), ({"max_workers": "2"}, TypeError),
            ({"worker_mode": "thread"}, ValueError),
        ]:
            try:
                integration.install(**options)
            except error as raised:
                assert "\\n" not in str(raised)
            else:
                raise AssertionError(options)
            assert integration.current_pool() is None
        """,
        tmp_path,
    )


@pytest.mark.parametrize("is_imported", [True, False])
def test_a_torch_without_a_place_for_a_pool_is_told_so(tmp_path: Path, is_imported: bool) -> None:
    # As another version would be: it lacks what we look for.
    strip = "import torch._inductor.async_compile as a; del a.AsyncCompile._get_ready"
    message = "has no AsyncCompile._get_ready; use torch 2.11 or later"
    if is_imported:
        run_program(
            f"""
            {strip}
            from compilepool.integrations.torch.takeover.inductor import UnsupportedTorch
            try:
                integration.install()
            except UnsupportedTorch as error:
                assert {message!r} in str(error) and "\\n" not in str(error), error
            else:
                raise AssertionError
            """,
            tmp_path,
        )
        return
    run_program(
        f"""
        import warnings
        from compilepool.integrations.torch.takeover import inductor
        check = inductor._check
        def check_stripped(module):
            del module.AsyncCompile._get_ready
            check(module)
        inductor._check = check_stripped
        integration.install()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            import torch._inductor.async_compile as a
        (text,) = [str(w.message) for w in caught if w.category is RuntimeWarning]
        assert {message!r} in text and text.endswith("Inductor goes on with its own"), text
        assert integration.current_pool() is None
        assert a.AsyncCompile.process_pool().submit(max, 1, 2).result(60) == 2
        """,
        tmp_path,
    )


SHOW_POOL = """
import compilepool.integrations.torch as integration
import torch
from tests.proc import children
import os
pool = integration.current_pool()
print(pool and pool.max_workers, len(children(os.getpid())))
"""


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, "None 0"),
        ({"COMPILEPOOL_TORCH": "0"}, "None 0"),
        ({"COMPILEPOOL_TORCH": "1", "COMPILEPOOL_TORCH_OPTIONS": '{"max_workers": 3}'}, "3 1"),
        ({"COMPILEPOOL_TORCH": "1", "TORCH_WARM_POOL": "0"}, "None 0"),  # it compiles nothing
    ],
)
def test_torch_loads_the_pool_if_the_environment_says_so(
    tmp_path: Path, env: dict[str, str], expected: str
) -> None:
    assert run_program(SHOW_POOL, tmp_path, prelude="", env=env).stdout.strip() == expected


def test_the_run_command_switches_it_on(tmp_path: Path) -> None:
    compilepool = str(Path(sys.executable).with_name("compilepool"))
    command = (compilepool, "run", "--workers", "3", "--timeout", "60", "--")
    done = run_program(SHOW_POOL, tmp_path, prelude="", command=command)
    assert done.stdout.strip() == "3 1"


def test_children_of_multiprocessing_start_no_pool_before_they_compile(tmp_path: Path) -> None:
    (tmp_path / "loads.py").write_text(
        "import operator, os, torch\n"
        "from torch._inductor.async_compile import AsyncCompile\n"
        "import compilepool.integrations.torch as integration\n"
        "from tests.proc import children\n"
        "def f():\n"
        "    before = len(children(os.getpid()))\n"
        "    sum = AsyncCompile.process_pool().submit(operator.add, 1, 2).result(60)\n"
        "    return before, sum, integration.current_pool() is not None\n"
    )
    run_program(
        """
        import multiprocessing, sys
        sys.path.insert(0, os.getcwd())
        import loads
        for method in ("spawn", "forkserver", "fork"):
            with multiprocessing.get_context(method).Pool(1) as processes:
                assert processes.apply(loads.f) == (0, 3, True), method
        """,
        tmp_path,
        env={"COMPILEPOOL_TORCH": "1"},
    )


def test_exit_does_not_wait_for_a_kernel_that_hangs(tmp_path: Path) -> None:
    run_program(
        """
        from tests.proc import wait_until
        here = Path.cwd()
        integration.install(max_workers=1)
        import torch
        from torch._inductor.async_compile import AsyncCompile
        def hang():
            (here / "started").touch()
            time.sleep(1000)
        AsyncCompile.process_pool().submit(hang)
        assert wait_until((here / "started").exists)
        """,
        tmp_path,
    )


def test_nothing_is_left_of_a_program_that_is_killed_while_it_compiles(tmp_path: Path) -> None:
    program = FAKE_GPU + "\n".join(
        [
            "here = Path.cwd()",
            "def hang():",
            "    (here / 'started').touch()",
            "    time.sleep(1000)",
            "integration.install(initializer=in_backend, initargs=('cumsum', hang))",
            "compile_for_gpu(many)",
        ]
    )
    mark = f"OF_THIS_TEST={tmp_path}"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, **program_env(tmp_path), "OF_THIS_TEST": str(tmp_path)},
        cwd=tmp_path,
    ) as process:
        assert wait_until((tmp_path / "started").exists, PATIENCE_S)
        assert len(descendants(process.pid)) >= 3
        process.kill()
    assert wait_until(lambda: not pids_with_environment(mark))
