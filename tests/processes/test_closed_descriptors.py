"""Programs that close all descriptors that they find, ours among them, or have none left."""

from __future__ import annotations

import subprocess
import sys

from tests.proc import PATIENCE_S


def run(code: str) -> str:
    """Run a program, without what the pool logs; returns its output."""
    program = f"import logging, os, select\nlogging.disable()\n{code}"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * 3,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_the_files_that_get_our_numbers_stay_open() -> None:
    said = run(
        f"""
from compilepool import CompilePool
def target(fd):
    return os.path.exists(f"/proc/self/fd/{{fd}}") and os.readlink(f"/proc/self/fd/{{fd}}")
with CompilePool(1, initializer=abs, initargs=(1,), trace=os.devnull) as pool:
    pool.submit(len, b"x" * 100_000).result({PATIENCE_S})
    large = pool.submit(len, b"x" * 100_000)
    running = pool.submit(select.select, [], [], [], 0.1)
    large.result({PATIENCE_S})
    os.closerange(3, 64)
    files = [os.open("/", os.O_RDONLY) for _ in range(20)]
    assert running.result({PATIENCE_S}) == ([], [], [])
    assert pool.submit(abs, -1).result({PATIENCE_S}) == 1
print({{target(fd) for fd in files}})
"""
    )
    assert said == "{'/'}\n"


def test_workers_are_initialized_all_the_same() -> None:
    said = run(
        f"""
from compilepool import CompilePool
with CompilePool(1, initializer=os.putenv, initargs=("INITIALIZED", "yes")) as pool:
    pool.submit(abs, -1).result({PATIENCE_S})
    os.closerange(3, 64)
    print(pool.submit(os.system, 'test "$INITIALIZED" = yes').result({PATIENCE_S}))
"""
    )
    assert said == "0\n"


def test_a_job_whose_large_arguments_are_closed_is_the_only_one_lost() -> None:
    said = run(
        f"""
from compilepool import CompilePool
with CompilePool(1) as pool:
    others = [pool.submit(select.select, [], [], [], 0.1), pool.submit(abs, -2)]
    large = pool.submit(len, b"x" * 100_000)
    more = pool.submit(abs, -3)
    os.closerange(3, 64)
    print(type(large.exception({PATIENCE_S})).__name__)
    print([future.result({PATIENCE_S}) for future in [*others, more]])
"""
    )
    assert said == "SupervisorDied\n[([], [], []), 2, 3]\n"


def test_a_trace_ends_without_harm() -> None:
    said = run(
        f"""
import tempfile
from compilepool import CompilePool
with tempfile.TemporaryDirectory() as folder:
    with CompilePool(1, trace=f"{{folder}}/trace.json") as pool:
        pool.submit(abs, -1).result({PATIENCE_S})
        os.closerange(3, 64)
        mine = [open(f"{{folder}}/{{number}}", "w+") for number in range(9)]
        print(pool.submit(abs, -2).result({PATIENCE_S}))
    print([os.fstat(file.fileno()).st_size for file in mine] == [0] * 9)
"""
    )
    assert said == "2\nTrue\n"


def test_no_pool_reads_or_writes_what_has_become_the_socket_of_another() -> None:
    said = run(
        f"""
from compilepool import CompilePool
with CompilePool(1) as first, CompilePool(1) as second:
    pools = (first, second)
    for pool in pools:
        pool.submit(abs, -1).result({PATIENCE_S})
    os.closerange(3, 64)
    futures = [(pools[n % 2].submit(abs, -n), n) for n in range(100)]
    print([n for future, n in futures if future.result({PATIENCE_S}) != n])
"""
    )
    assert said == "[]\n"


def test_a_failure_that_cannot_be_read_without_a_descriptor_costs_its_job_only() -> None:
    said = run(
        f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from compilepool import CompilePool, CompilePoolError
with CompilePool(1) as pool:
    running = pool.submit(os._exit, 1)
    del sys.modules["json"]  # what its failure is read with has to be imported again
    held = []
    try:
        while True:
            held.append(os.open("/", os.O_RDONLY))
    except OSError:
        pass
    print(isinstance(running.exception({PATIENCE_S}), CompilePoolError))
    for fd in held:
        os.close(fd)
    print(pool.submit(abs, -1).result({PATIENCE_S}), pool.stats().restarts.supervisor)
"""
    )
    assert said == "True\n1 0\n"


def test_a_process_starts_while_threads_close_inheritable_descriptors() -> None:
    said = run(
        """
import sys, threading
from compilepool.linux.spawn import spawn
is_over = threading.Event()
def open_and_close():
    while not is_over.is_set():
        fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        for fd in fds:
            os.set_inheritable(fd, True)
        for fd in fds:
            os.close(fd)
threads = [threading.Thread(target=open_and_close) for _ in range(3)]
sys.setswitchinterval(1e-5)
for thread in threads:
    thread.start()
read, write = os.pipe()
codes = set()
try:
    for _ in range(400):
        codes.add(os.waitpid(spawn(["/bin/true"], {}, [read, write]), 0)[1])
finally:
    is_over.set()
print(codes)
"""
    )
    assert said == "{0}\n"
