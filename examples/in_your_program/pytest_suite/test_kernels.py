"""Tests whose jobs run in a pool.

Run: pytest examples/in_your_program/pytest_suite; with pytest-xdist also: -n 2
"""

import ctypes

import pytest

from compilepool import CompilePool, WorkerCrashed


def compile_kernel(size: int) -> str:
    print("compiling", size)
    return f"matmul_{size}" if size != 96 else ctypes.string_at(0)  # stands for a compiler's bug


@pytest.mark.parametrize("size", [16, 32, 64])
def test_a_kernel_compiles(pool: CompilePool, size: int) -> None:
    future = pool.submit(compile_kernel, size)
    assert future.result() == f"matmul_{size}"
    assert future.record.log == f"compiling {size}\n"  # not in capsys, capfd or caplog


def test_a_crash_is_one_tests_business(pool: CompilePool) -> None:
    with pytest.raises(WorkerCrashed, match="SIGSEGV"):
        pool.submit(compile_kernel, 96).result()
