"""Who compiles in each of Inductor's worker modes, which torch has from 2.15 on."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch._inductor import config

from tests.pytorch.inductor_program import FAKE_GPU, run_program

HAS_MODES = hasattr(config, "compile_worker_mode")
needs_modes = pytest.mark.skipif(not HAS_MODES, reason="this torch has no worker modes")

MODE = "TORCH_COMPILE_WORKER_MODE"

WARNINGS = (
    FAKE_GPU
    + """
import warnings
from concurrent.futures import ThreadPoolExecutor

def warnings_of(function):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        function()
    return [str(w.message) for w in caught if "compilepool" in str(w.message)]

def are_compiled_by_the_pool(function):
    from torch._inductor.async_compile import AsyncCompile
    before = integration.current_pool().stats().submitted
    compile_for_gpu(function)
    count = integration.current_pool().stats().submitted - before
    assert isinstance(AsyncCompile.get_worker_pool(), ThreadPoolExecutor) == (count == 0)
    return count > 0
"""
)


@needs_modes
@pytest.mark.parametrize("is_imported", [True, False])
def test_install_says_once_that_threads_compile(is_imported: bool, tmp_path: Path) -> None:
    run_program(
        f"""
        if {is_imported}:
            import torch._inductor.async_compile
            (said,) = warnings_of(integration.install)
        else:
            assert warnings_of(integration.install) == []
            def load():
                import torch._inductor.async_compile
            (said,) = warnings_of(load)
        assert "(compile_worker_mode is 'thread')" in said, said
        assert "timeout or memory_limit" in said, said
        assert "install(worker_mode='process')" in said and "\\n" not in said, said
        def compile():
            assert not are_compiled_by_the_pool(softmax)
        assert warnings_of(compile) == []
        """,
        tmp_path,
        prelude=WARNINGS,
        env={MODE: "thread"},
    )


@needs_modes
@pytest.mark.parametrize("mode", ["process", "auto"])
def test_in_other_modes_the_pool_compiles(mode: str, tmp_path: Path) -> None:
    run_program(
        """
        import sys
        def compile():
            integration.install()
            has_gil = getattr(sys, "_is_gil_enabled", bool)() or not hasattr(sys, "_is_gil_enabled")
            assert are_compiled_by_the_pool(softmax) == (has_gil or os.environ["MODE"] == "process")
        said = warnings_of(compile)
        assert not said, said
        """,
        tmp_path,
        prelude=WARNINGS,
        env={MODE: mode, "MODE": mode},
    )


@needs_modes
def test_the_pool_compiles_in_any_mode_if_install_says_so(tmp_path: Path) -> None:
    run_program(
        """
        def compile():
            integration.install(worker_mode="process")
            assert are_compiled_by_the_pool(softmax)
            integration.install(max_workers=1)
        assert len(warnings_of(compile)) == 0
        from torch._inductor import config
        assert config.compile_worker_mode == "thread"
        assert len(warnings_of(lambda: compile_for_gpu(cumsum))) == 1
        assert not are_compiled_by_the_pool(many)
        """,
        tmp_path,
        prelude=WARNINGS,
        env={MODE: "thread"},
    )


@needs_modes
def test_a_mode_that_the_program_sets_later_counts(tmp_path: Path) -> None:
    run_program(
        """
        integration.install()
        from torch._inductor import config
        assert are_compiled_by_the_pool(softmax)
        def compile():
            with config.patch(compile_worker_mode="thread"):
                assert not are_compiled_by_the_pool(cumsum)
        assert len(warnings_of(compile)) == 1
        assert len(warnings_of(compile)) == 0
        """,
        tmp_path,
        prelude=WARNINGS,
    )


@needs_modes
def test_after_uninstall_the_mode_is_torchs_own_again(tmp_path: Path) -> None:
    run_program(
        """
        import torch._inductor.async_compile as async_compile
        original = vars(async_compile.AsyncCompile)["should_use_thread_workers"]
        integration.install(worker_mode="process", max_workers=1)
        assert not async_compile.AsyncCompile.should_use_thread_workers()
        integration.uninstall()
        assert vars(async_compile.AsyncCompile)["should_use_thread_workers"] is original
        assert isinstance(async_compile.AsyncCompile.get_worker_pool(), ThreadPoolExecutor)
        """,
        tmp_path,
        prelude=WARNINGS,
        env={MODE: "thread"},
    )


@needs_modes
def test_an_error_made_of_the_warning_leaves_inductor_as_it_was(tmp_path: Path) -> None:
    run_program(
        """
        import torch._inductor.async_compile as async_compile
        before = dict(vars(async_compile.AsyncCompile))
        warnings.simplefilter("error", RuntimeWarning)
        try:
            integration.install()
        except RuntimeWarning as said:
            assert "threads" in str(said)
        else:
            raise AssertionError
        after = vars(async_compile.AsyncCompile)
        for name in ("process_pool", "should_use_thread_workers"):
            assert after[name] is before[name], name
        assert integration.current_pool() is None
        """,
        tmp_path,
        prelude=WARNINGS,
        env={MODE: "thread"},
    )


def test_the_environment_can_say_so_too(tmp_path: Path) -> None:
    run_program(
        """
        import torch
        assert integration.current_pool() is not None
        assert are_compiled_by_the_pool(softmax)
        """
        if HAS_MODES
        else "import torch; assert integration.current_pool() is not None",
        tmp_path,
        prelude=WARNINGS,
        env={
            MODE: "thread",
            "COMPILEPOOL_TORCH": "1",
            "COMPILEPOOL_TORCH_OPTIONS": '{"worker_mode": "process", "max_workers": 1}',
        },
    )
