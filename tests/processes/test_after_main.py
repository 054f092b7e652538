"""The end of the main thread is not the end of the program: its other threads keep their pools."""

from __future__ import annotations

import pytest

from tests.programs.running import run_code

GOES_ON = """
import os, sys, threading, time
from compilepool import CompilePool
pool = CompilePool(1, start_method=sys.argv[1])
started = pool.submit(int)
def serve():
    threading.main_thread().join()
    futures = [pool.submit(pow, 2, n) for n in range(3)]
    print(started.result(20), *(future.result(20) for future in futures))
    print(*pool.map(abs, [-1, -2]), type(pool.submit(os.abort).exception(20)).__name__)
    pool.submit(time.sleep, 1000)  # what nobody waits for ends with the program
threading.Thread(target=serve).start()
"""

MADE_LATE = """
import sys, threading
def serve():
    threading.main_thread().join()
    from compilepool import CompilePool, CompilePoolError
    import os
    with CompilePool(1, start_method=sys.argv[1]) as pool:
        print(pool.submit(abs, -1).result(20))
        error = pool.submit(os.abort).exception(20)
        print(type(error).__name__, error.signal.name, isinstance(error, CompilePoolError))
threading.Thread(target=serve).start()
"""

IN_AN_EXECUTOR = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from compilepool import CompilePool
pool = CompilePool(1, start_method=sys.argv[1])
def compile_one(number):
    time.sleep(0.05)  # main ends; in Python 3.11, two threads cannot both join it
    # The newline is in the same write: another thread may print between two of them.
    print(f"{pool.submit(pow, number, 2).result(20)}\\n", end="")
ThreadPoolExecutor(2).map(compile_one, [1, 2, 3])
"""

AT_EXIT = """
import atexit, sys
from compilepool import CompilePool
pool = CompilePool(1, start_method=sys.argv[1])
atexit.register(lambda: print(pool.submit(abs, -1).result(20)))
"""

WAITS_FOR_EVER = """
import sys, threading, time
from compilepool import CompilePool
pool = CompilePool(1, start_method=sys.argv[1])
future = pool.submit(time.sleep, 1000)
threading.Thread(target=lambda: print(type(future.exception()).__name__), daemon=True).start()
"""

PROGRAMS = {
    "goes on": (GOES_ON, "0 1 2 4\n1 2 WorkerCrashed\n"),
    "is made late": (MADE_LATE, "1\nWorkerCrashed SIGABRT True\n"),
    "is used by a thread pool": (IN_AN_EXECUTOR, "1\n4\n9\n"),
    "is used by an atexit function": (AT_EXIT, "1\n"),
}


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize(("program", "output"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_pool_after_the_end_of_main(program: str, output: str, start_method: str) -> None:
    result = run_code(program, start_method)
    lines = sorted(result.stdout.splitlines())  # two threads print
    assert (result.returncode, lines, result.stderr) == (0, sorted(output.splitlines()), "")


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_daemon_thread_that_waits_does_not_keep_the_program_from_ending(
    start_method: str,
) -> None:
    result = run_code(WAITS_FOR_EVER, start_method)
    assert result.returncode == 0
    assert result.stdout.strip() in ("", "PoolClosed")  # the interpreter may end the thread first
