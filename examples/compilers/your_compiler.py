"""A small compiler that uses a pool when it is given one: docs/your_compiler.md explains it.

It compiles expressions to C, and that to machine code, by `cc`. Its cache is a folder.

Run: python examples/compilers/your_compiler.py
"""

import ctypes
import hashlib
import subprocess
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path

from compilepool import CompilePool, CompilePoolError, report_phase


def compile_expression(expression: str, folder: str) -> str:
    """The job: plain data in, the path of a file out. It runs in a worker, or in the program."""
    library = Path(folder, hashlib.sha256(expression.encode()).hexdigest()[:16] + ".so")
    if library.exists():
        return str(library)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        source, built = Path(own, "source.c"), Path(own, "built.so")
        report_phase("generate")
        source.write_text(f"double f(double x) {{ return {expression}; }}")
        report_phase("cc")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, source], check=True)
        built.rename(library)  # whole or not at all, whoever else writes it
    return str(library)


class Compiler:
    """What users of the compiler see."""

    def __init__(self, folder: str, executor=None) -> None:
        self._folder = folder
        self._executor = executor

    def start(self, expression: str) -> Future:
        """Start to compile an expression, by a name that a report can use."""
        if self._executor is None:
            future = Future()
            future.set_result(compile_expression(expression, self._folder))
            return future
        executor = self._executor
        if isinstance(executor, CompilePool):  # any other executor has no options
            executor = executor.options(name=f"expression {expression!r}", key=expression)
        return executor.submit(compile_expression, expression, self._folder)

    def load(self, future: Future):
        """Load a compiled function, in the program."""
        function = ctypes.CDLL(future.result()).f
        function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
        return function


with (
    tempfile.TemporaryDirectory() as folder,
    CompilePool(max_workers=2, preload=["subprocess"], timeout=60, memory_limit="1GiB") as pool,
):
    compiler = Compiler(folder, pool)
    expressions = ["x * x", "x +", *(f"{n} * x" for n in range(8))]
    futures = {expression: compiler.start(expression) for expression in expressions}
    for expression, future in futures.items():
        try:
            print(f"{expression} at 3:", compiler.load(future)(3))
        except subprocess.CalledProcessError as error:
            print(f"{expression} failed: {error.cmd[0]} returned {error.returncode}")
            print(future.record.log.splitlines()[0])
        except CompilePoolError as error:  # a crash, a timeout, too much memory
            print(error, file=sys.stderr)
