"""Numba's cache, filled by workers, is as good as the program's own."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import wait
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from compilepool import CompilePool, WorkerCrashed
from tests.proc import PATIENCE_S

if find_spec("numba") is None:
    pytest.skip("the extra `numba` is not installed", allow_module_level=True)

from compilepool.integrations.numba import PRELOAD, compile_many, compile_ptx_many

FUNCTIONS = """\
import ctypes
import numba
from numba.extending import intrinsic

@numba.njit(cache=True)
def square(x):
    return x * x

@numba.njit(cache=True)
def sum_of_squares(xs):
    total = 0.0
    for x in xs:
        total += square(x)
    return total

def adder(amount):
    @numba.njit(cache=True)
    def add(x):
        return x + amount
    return add

def caller(function):
    def call(x):
        return function(x)
    call.__qualname__ = "call_square"  # so that it can be imported
    return numba.njit(cache=True)(call)

add_1, add_2, add_half = adder(1), adder(2), adder(0.5)
call_square = caller(square)

@numba.njit
def without_cache(x):
    return x

@intrinsic
def crash(typing_context, x):
    def generate(context, builder, signature, args):
        ctypes.string_at(0)
    return x(x), generate

@numba.njit(cache=True)
def crashes_the_compiler(x):
    return crash(x)
"""

FRESH = """\
import numba
import kernels
from kernels import add_1, add_2, add_half

@numba.njit
def all_of_them(x):
    return add_1(x), add_2(x), add_half(x)

print(all_of_them(10), add_1(10), add_2(10), add_half(10))
for function in (add_1, add_2, add_half):
    print(sum(function.stats.cache_hits.values()), sum(function.stats.cache_misses.values()))
"""


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of functions, with an empty cache."""
    (tmp_path / "kernels.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("kernels")
    del sys.modules["kernels"]


def run_fresh(folder: Path, program: str, *arguments: str) -> str:
    """The output of a program in a folder, with Numba's statistics."""
    (folder / "program.py").write_text(program)
    command = [sys.executable, "program.py", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S * 3, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def without_pool(program: str, answers: str) -> str:
    return f"{program}\nimport sys\nassert 'compilepool' not in sys.modules\nprint({answers})\n"


def results(futures: list[Any]) -> list[Any]:
    return [future.result(PATIENCE_S * 3) for future in futures]


def test_a_program_that_never_saw_the_pool_finds_everything_in_the_cache(
    kernels: ModuleType, tmp_path: Path
) -> None:
    jobs = [
        (kernels.square, "(f8,)"),
        (kernels.sum_of_squares, "(f8[::1],)"),
        (kernels.square, "(i8,)"),
    ]
    assert results(compile_many(jobs)) == [True, True, True]
    program = """\
import numpy, kernels
answers = [kernels.sum_of_squares(numpy.arange(4.0)), kernels.square(3), kernels.square(1.5)]
for function in (kernels.sum_of_squares, kernels.square):
    answers += [sum(count.values()) for count in function.stats[1:]]
"""
    assert run_fresh(tmp_path, without_pool(program, "*answers")) == "14.0 9 2.25 1 0 2 0\n"
    assert kernels.square(4) == 16
    assert not kernels.square.stats.cache_misses
    assert results(compile_many(jobs)) == [False, False, False]


def test_closures_that_forked_workers_have_compiled_do_not_pass_for_each_other(
    kernels: ModuleType, tmp_path: Path
) -> None:
    """numba#10486: all workers are forked from one process, and would go on from its count."""
    jobs = [(kernels.add_1, "(i8,)"), (kernels.add_2, "(i8,)"), (kernels.add_half, "(i8,)")]
    # Each job is the first of its worker.
    with CompilePool(1, preload=[PRELOAD, "kernels"], max_jobs_per_worker=1) as pool:
        futures = compile_many(jobs, pool=pool)
        assert results(futures) == [True, True, True]
        assert len({future.record.worker_pid for future in futures}) == len(jobs)
    output = run_fresh(tmp_path, FRESH)
    assert output == "(11, 12, 10.5) 11 12 10.5\n" + "1 0\n" * 3


def save_entries(folder: str, first: int) -> None:
    """Save entries of one function, some of them a second time."""
    from numba.core.caching import IndexDataCacheFile

    from compilepool.integrations.numba.worker.be_a_worker import be_a_worker

    be_a_worker()
    file = IndexDataCacheFile(folder, "function", "stamp")
    for key in range(first, first + 200):
        file.save(key, {"code of": key})


def test_workers_that_save_at_once_lose_nothing_and_mix_nothing_up(tmp_path: Path) -> None:
    from numba.core.caching import IndexDataCacheFile

    with CompilePool(4, preload=[PRELOAD]) as pool:
        assert pool.wait_ready(PATIENCE_S)
        results([pool.submit(save_entries, str(tmp_path), 100 * part) for part in range(4)])
    file = IndexDataCacheFile(str(tmp_path), "function", "stamp")
    assert [file.load(key) for key in range(500)] == [{"code of": key} for key in range(500)]


def compile_and_be_killed_at(write: str) -> None:
    """Compile the function of the module, and die when the cache is written."""
    import os
    import signal

    import kernels  # type: ignore[import-not-found]
    from numba.core.caching import IndexDataCacheFile

    from compilepool.integrations.numba.worker.be_a_worker import be_a_worker

    be_a_worker()
    name = {"code": "_save_data", "entry": "_save_index"}[write]
    original = getattr(IndexDataCacheFile, name)

    def save(file: Any, *args: Any) -> None:
        if args[-1] == {}:
            original(file, *args)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(IndexDataCacheFile, name, save)
    kernels.f.compile((kernels.numba.int64,))


@pytest.mark.parametrize("write", ["code", "entry"])
def test_a_worker_that_is_killed_while_it_writes_leaves_no_entry_for_old_code(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import kernels; print(kernels.f(1), kernels.f.stats.cache_hits.total())"
    source = "import numba\n@numba.njit(cache=True)\ndef f(x): return x + {}\n"
    (tmp_path / "kernels.py").write_text(source.format(1000))
    assert run_fresh(tmp_path, program) == "1001 0\n"
    assert run_fresh(tmp_path, program) == "1001 1\n"
    (tmp_path / "kernels.py").write_text(source.format(2000000))
    monkeypatch.syspath_prepend(str(tmp_path))
    with CompilePool(1, preload=[PRELOAD]) as pool:
        future = pool.submit(compile_and_be_killed_at, write)
        with pytest.raises(WorkerCrashed):
            future.result(PATIENCE_S)
    for amount in (1000, 2000000):
        (tmp_path / "kernels.py").write_text(source.format(amount))
        assert run_fresh(tmp_path, program).split()[0] == f"{amount + 1}"
        assert run_fresh(tmp_path, program) == f"{amount + 1} 1\n"


def test_a_crash_of_the_compiler_costs_its_own_function(kernels: ModuleType) -> None:
    bad, good = compile_many([(kernels.crashes_the_compiler, "(i8,)"), (kernels.square, "(i8,)")])
    with pytest.raises(WorkerCrashed, match=r"crashes_the_compiler\(int64\).* SIGSEGV"):
        bad.result(PATIENCE_S * 3)
    assert good.result(PATIENCE_S * 3) is True


SCRIPT = """\
import sys
import numba

@numba.njit(cache=True)
def triple(x):
    return 3 * x

@numba.njit(cache=True)
def nine_times(x):
    return triple(triple(x))

def adder(amount):
    @numba.njit(cache=True)
    def add(x):
        return x + amount
    return add

functions = [triple, nine_times, adder(7)]
if "compile" in sys.argv:
    from compilepool.integrations.numba import compile_many
    print(*[future.result() for future in compile_many((f, "(i8,)") for f in functions)])
else:
    print(*[f(2) for f in functions], *[f.stats.cache_hits.total() for f in functions])
"""


def test_functions_of_a_script_and_closures_go_by_value(tmp_path: Path) -> None:
    assert run_fresh(tmp_path, SCRIPT, "compile") == "True True True\n"
    assert run_fresh(tmp_path, SCRIPT) == "6 18 9 1 1 1\n"


def test_what_the_program_would_not_find_is_an_error(
    kernels: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (future,) = compile_many([(kernels.call_square, "(i8,)")])
    with pytest.raises(RuntimeError, match="its closure pickles differently in each process"):
        future.result(PATIENCE_S * 3)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "elsewhere"))
    (future,) = compile_many([(kernels.square, "(i8,)")])
    with pytest.raises(RuntimeError, match="it looks in another file; set NUMBA_CACHE_DIR"):
        future.result(PATIENCE_S * 3)
    assert not list(tmp_path.glob("**/*square*.nbc"))


def test_errors_of_numba_arrive_and_wrong_arguments_are_refused(kernels: ModuleType) -> None:
    from numba.core.errors import TypingError

    with CompilePool(1, preload=[PRELOAD]) as pool:
        not_a_list, other_type = compile_many(
            [(kernels.sum_of_squares, "(i8,)"), (kernels.square, "f8(i8)")], pool=pool
        )
        wait([not_a_list, other_type], PATIENCE_S * 3)
    with pytest.raises(TypingError, match="getiter"):
        not_a_list.result()
    with pytest.raises(TypeError, match="square returns int64, not float64"):
        other_type.result()
    with pytest.raises(ValueError, match=r"without_cache has no cache .*njit\(cache=True\)"):
        compile_many([(kernels.without_cache, "(i8,)")])
    with pytest.raises(TypeError, match=r"functions that numba\.njit has made, not"):
        compile_many([(kernels.adder, "(i8,)")])
    with pytest.raises(TypeError, match="invalid signature"):
        compile_many([(kernels.square, 3)])


UFUNCS = """\
import numba

@numba.guvectorize(["(i8[:], i8[:])", "(f8[:], f8[:])"], "(n)->(n)", nopython=True, cache=True)
def doubled(x, out):
    for i in range(x.shape[0]):
        out[i] = 2 * x[i]

@numba.njit("i8(i8)", cache=True)
def eager(x):
    return x + 1

@numba.njit(cache=True)
def lazy(x):
    return eager(x) + 1
"""


def double(numbers: list[float]) -> list[float]:
    import numpy as np
    import ufuncs  # type: ignore[import-not-found]

    doubled: list[float] = ufuncs.doubled(np.array(numbers)).tolist()
    return doubled


def test_what_compiles_at_its_import_is_compiled_once_by_a_preload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba#4807, numba#10128: processes that import one module at once mix up its ufuncs."""
    (tmp_path / "ufuncs.py").write_text(UFUNCS)
    monkeypatch.syspath_prepend(str(tmp_path))
    with CompilePool(4, preload=[PRELOAD, "ufuncs"]) as pool:
        there = results([pool.submit(double, [1, 2.5 * i]) for i in range(8)])
    assert there == [[2, 5.0 * i] for i in range(8)]
    assert len(list(tmp_path.glob("**/*doubled*.nbc"))) == 4  # code and wrapper of two signatures
    program = """\
import numpy, ufuncs
answers = [ufuncs.doubled(numpy.arange(3)), ufuncs.doubled(numpy.array([1.5])), ufuncs.eager(1)]
"""
    answers = "*answers, ufuncs.eager.stats.cache_hits.total()"
    assert run_fresh(tmp_path, without_pool(program, answers)) == "[0 2 4] [3.] 2 1\n"


GPU_FUNCTIONS = """\
from numba import cuda

def axpy(result, a, x, y):
    i = cuda.grid(1)
    if i < result.size:
        result[i] = a * x[i] + y[i]

@cuda.jit(device=True)
def half(x):
    return x / 2
"""


@pytest.mark.skipif(not find_spec("numba_cuda"), reason="the extra `numba-cuda` is not installed")
def test_ptx_is_the_same_as_from_numba_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gpu_functions.py").write_text(GPU_FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    import gpu_functions  # type: ignore[import-not-found]
    from numba import cuda

    (kernel,) = compile_ptx_many(
        [(gpu_functions.axpy, "(f8[::1], f8, f8[::1], f8[::1])")], cc=(9, 0)
    )
    ptx, returns = kernel.result(PATIENCE_S * 3)
    assert ".target sm_90" in ptx
    assert ".visible .entry" in ptx
    assert str(returns) == "none"
    functions = compile_ptx_many(
        [(gpu_functions.half, "f8(f8)"), (gpu_functions.half, "f4(f4)")],
        cc=(8, 0),
        device=True,
        abi="c",
    )
    there = [future.result(PATIENCE_S * 3) for future in functions]
    here = [
        cuda.compile_ptx(gpu_functions.half, signature, cc=(8, 0), device=True, abi="c")
        for signature in ("f8(f8)", "f4(f4)")
    ]
    assert there == here
