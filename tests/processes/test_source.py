"""What goes by value keeps its source: in workers, in reports, and back in the client."""

from __future__ import annotations

import ctypes
import inspect
import linecache
import os
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from compilepool import CompilePool, JobTimeout, WorkerCrashed
from tests.proc import PATIENCE_S
from tests.processes.replays import compilepool

SCRIPT = """\
# -*- coding: utf-8 -*- é
{setup}
import dataclasses, functools, inspect, sys, traceback
from compilepool import CompilePool

def fails(): return 1 / 0

class Class:
    def method(self): return 1 / 0

@dataclasses.dataclass
class Data:
    size: int = 0

def decorator(function):
    @functools.wraps(function)
    def wrapper(): return function()
    return wrapper

@decorator
def decorated(): return 1 / 0

def outer(number):
    def inner(): return number / 0
    return inner

def generator():
    yield 1 / 0

def source(thing):
    try:
        return inspect.getsource(thing)
    except OSError:
        return "OSError"

def traceback_of(function):
    try:
        function()
    except ZeroDivisionError as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return frame.filename, frame.lineno, frame.name, frame.line

def job():
    things = [fails, Class, Class.method, Data, decorated, outer(1), generator, lambda: 0]
    functions = [fails, Class().method, decorated, outer(1), lambda: next(generator())]
    return [source(each) for each in things], [traceback_of(each) for each in functions]

here = job()
with CompilePool(1, start_method=sys.argv[1]) as pool:
    there = pool.submit(job).result({patience})
    assert here == there, (here, there)
    lambda_ = pool.submit(lambda: lambda: 1 / 0).result({patience})
    assert traceback_of(lambda_) == traceback_of(lambda: 1 / 0)[:1] + traceback_of(lambda_)[1:]
print(here[0][0].strip(), here[1][0][-1])
"""


def run(*command: str | Path, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        input=stdin,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * 3,
    )


def script(setup: str = "") -> str:
    return SCRIPT.format(setup=setup, patience=PATIENCE_S)


SHOWN = "def fails(): return 1 / 0 def fails(): return 1 / 0\n"


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize(
    ("setup", "command"),
    [
        ("", ["script.py"]),
        ("import os; os.chdir('/')", ["script.py"]),
        ("", ["-m", "script"]),
        ("", ["."]),
        ("", ["zipped.pyz"]),
    ],
    ids=["script", "other directory", "module", "directory", "zip file"],
)
def test_a_worker_sees_the_source_of_a_program_as_the_program_does(
    tmp_path: Path, setup: str, command: list[str], start_method: str
) -> None:
    for name in ("script.py", "__main__.py"):
        (tmp_path / name).write_text(script(setup), encoding="utf-8")
    with zipfile.ZipFile(tmp_path / "zipped.pyz", "w") as archive:
        archive.write(tmp_path / "__main__.py", "__main__.py")
    ended = run(*command, start_method, cwd=tmp_path)
    assert (ended.stderr, ended.stdout) == ("", SHOWN)


def test_a_program_without_a_file_has_as_much_source_in_a_worker(tmp_path: Path) -> None:
    ended = run("-c", script(), "fork", cwd=tmp_path)
    has_source = sys.version_info >= (3, 13)
    shown = SHOWN if has_source else "OSError \n"
    assert (ended.stderr, ended.stdout) == ("", shown)
    ended = run("-", "fork", cwd=tmp_path, stdin=script())
    assert (ended.stderr, ended.stdout) == ("", "OSError \n")


def test_a_script_that_is_run_by_a_relative_path(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import inspect\n"
        "from compilepool import CompilePool\n"
        "def job():\n"
        "    return inspect.getsource(job), inspect.getsource(Class)\n"
        "class Class: pass\n"
        "with CompilePool(1) as pool:\n"
        f"    print(pool.submit(job).result({PATIENCE_S}) == job())\n"
    )
    code = "import runpy; runpy.run_path('script.py', run_name='__main__')"
    ended = run("-c", code, cwd=tmp_path)
    assert (ended.stderr, ended.stdout) == ("", "True\n")


def test_a_doctest(tmp_path: Path) -> None:
    (tmp_path / "tested.py").write_text(
        textwrap.dedent(f'''\
        """
        >>> import inspect
        >>> from compilepool import CompilePool
        >>> def job(): return inspect.getsource(job)
        >>> with CompilePool(1) as pool:
        ...     pool.submit(job).result({PATIENCE_S})
        'def job(): return inspect.getsource(job)\\\\n'
        """
        ''')
    )
    ended = run("-m", "doctest", "tested.py", cwd=tmp_path)
    assert (ended.stderr, ended.stdout) == ("", "")


def test_the_source_of_a_class_does_not_make_processes_of_a_job_run_the_script(
    tmp_path: Path,
) -> None:
    (tmp_path / "script.py").write_text(
        "import inspect, multiprocessing, os\n"
        "from compilepool import CompilePool\n"
        "print('the script runs', flush=True)\n"
        "class Class: pass\n"
        "def job():\n"
        "    child = multiprocessing.get_context('spawn').Process(target=os.getpid)\n"
        "    child.start()\n"
        "    child.join()\n"
        "    return inspect.getsource(Class), child.exitcode\n"
        "with CompilePool(1, capture=False) as pool:\n"  # it has no `if __name__ == "__main__"`
        f"    print(pool.submit(job).result({PATIENCE_S}))\n"
    )
    ended = run("script.py", cwd=tmp_path)
    assert ended.stderr == ""
    assert ended.stdout == "the script runs\n('class Class: pass\\n', 0)\n"


def line_of(function: Callable[..., Any]) -> int:
    return function.__code__.co_firstlineno


def test_reports_name_file_and_line(root: Path) -> None:
    crash = lambda: ctypes.string_at(0)  # noqa: E731 - goes by value
    hang = lambda: threading.Event().wait()  # noqa: E731

    def fail() -> None:
        raise ValueError("no such tile")  # says the script

    with CompilePool(1) as pool:
        crashed = pool.submit(crash).exception(PATIENCE_S)
        hung = pool.options(timeout=0.2).submit(hang).exception(PATIENCE_S)
        failed = pool.submit(fail).exception(PATIENCE_S)
    assert isinstance(crashed, WorkerCrashed)
    where = f'File "{__file__}", line {line_of(crash)} in <lambda>'
    assert where in str(crashed)
    assert where in crashed.python_traceback
    assert isinstance(hung, JobTimeout)
    where = f'File "{__file__}", line {line_of(hang)} in <lambda>'
    assert where in str(hung)
    assert where in hung.python_traceback
    assert failed is not None
    assert f'File "{__file__}", line {line_of(fail) + 1}, in fail' in str(failed.__cause__)
    assert 'raise ValueError("no such tile")  # says the script' in str(failed.__cause__)


def made_without_a_file(text: str, name: str) -> dict[str, Any]:
    """What code has made whose source is in `linecache` only, as that of a notebook's cell is."""
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), names)
    return names


CELL = """\
import inspect, os, sys
def initialize():
    sys.initialized_by = inspect.getsource(initialize)
def state():
    return sys.initialized_by, inspect.getsource(state)
def give_back():
    return lambda: "made there"
def die():
    print(*state(), flush=True)
    os._exit(7)
"""


def part(*lines: int) -> str:
    return "".join(line for at, line in enumerate(CELL.splitlines(keepends=True)) if at in lines)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_source_in_no_file_goes_to_workers_and_back(
    root: Path, start_method: Literal["fork", "spawn"]
) -> None:
    name = "<ipython-input-1-f00>"
    cell = made_without_a_file(CELL, name)
    with CompilePool(1, start_method=start_method, initializer=cell["initialize"]) as pool:
        for _ in range(2):  # the second job comes when the source of the first is gone
            there = pool.submit(cell["state"]).result(PATIENCE_S)
            assert there == (part(1, 2), part(3, 4))
        function = pool.submit(cell["give_back"]).result(PATIENCE_S)
        assert inspect.getsource(function).strip() == 'return lambda: "made there"'
        crashed = pool.submit(cell["die"]).exception(PATIENCE_S)
    del linecache.cache[name]
    assert isinstance(crashed, WorkerCrashed)
    ended = compilepool("replay", crashed.folder, cwd=root)
    assert part(1, 2) in ended.stdout
    assert part(3, 4) in ended.stdout


def test_a_result_whose_source_the_client_does_not_have() -> None:
    def make() -> Any:
        text = "def made():\n    return 1\n"
        name = f"<made by {os.getpid()}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), names)
        return names["made"]

    with CompilePool(1) as pool:
        made = pool.submit(make).result(PATIENCE_S)
    assert inspect.getsource(made) == "def made():\n    return 1\n"


KERNELS = """\
import triton, triton.language as tl

@triton.jit
def scaled(value, scale: tl.constexpr):
    return value * scale

@triton.jit(do_not_specialize=["size"])
def kernel(out, size, scale: tl.constexpr):
    tl.store(out, scaled(size, scale))
"""
JOBS = """\
from compilepool import CompilePool

def compiled(kernel):
    from triton.compiler import ASTSource
    ir = ASTSource(kernel, {"out": "*i32", "size": "i32"}, {"scale": 4})
    return [each.do_not_specialize for each in kernel.params], len(ir.hash()), kernel.src

def of_the_script():
    return compiled(kernel)

def of_the_function():
    import triton, triton.language as tl
    @triton.jit
    def inner(out, size, scale: tl.constexpr):
        tl.store(out, size + scale)
    return compiled(inner)

with CompilePool(1) as pool:
    for job in (of_the_script, of_the_function):
        print(pool.submit(job).result(120) == job(), flush=True)
"""


@pytest.mark.parametrize("jobs", [KERNELS + JOBS, "from kernels import kernel\n" + JOBS])
def test_kernels_of_a_script_can_be_compiled(tmp_path: Path, jobs: str) -> None:
    pytest.importorskip("triton")
    (tmp_path / "kernels.py").write_text(KERNELS)
    (tmp_path / "script.py").write_text(jobs)
    ended = run("script.py", cwd=tmp_path)
    assert (ended.stderr, ended.stdout) == ("", "True\nTrue\n")
