"""Measure what crash reports and logs cost.

    python benchmarks/reports.py [RUNS]

- The time from a crash to its exception, for each way to crash of tests/zoo and for an abort in
  Triton's LLVM, with native stacks and without. The clock starts when the job calls the function
  that crashes: the job writes `time.monotonic()` to a file just before.
- How much longer other jobs take while an inspector looks at a crashed worker.
- A job that prints 100 MB, compared with the same job whose output goes to /dev/null; and the
  growth of the supervisor's memory.
- `CompilePool.dump` of a job that spins in C and holds the GIL.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.proc import pool_process
from tests.zoo import CRASHES, Where, build, call

from compilepool import CompilePool, WorkerCrashed
from compilepool.cli.demo.faults import abort_in_llvm

LINE = "x" * 99
LINES = 1_000_000


def crash_now(began: str, crash: Callable[..., None], *args: object) -> None:
    with open(began, "w") as file:
        file.write(repr(time.monotonic()))
    crash(*args)


def time_crash(pool: CompilePool, began: Path, crash: Callable[..., None], *args: object) -> float:
    """Return the seconds from a crash to its exception, in a worker that is warm."""
    pool.submit(abs, 1).result()
    error = pool.submit(crash_now, str(began), crash, *args).exception()
    now = time.monotonic()
    if not isinstance(error, WorkerCrashed):
        sys.exit(f"expected a crash, not {error!r}")
    return now - float(began.read_text())


def crash_times(runs: int, folder: Path) -> Iterator[tuple[str, list[float], list[float]]]:
    library = str(build(folder))
    ways = [(crash.name, (call, library, crash.symbol, crash.where)) for crash in CRASHES]
    ways.append(("abort in Triton's LLVM", (abort_in_llvm,)))
    for name, (function, *args) in ways:
        preload = ["triton"] if function is abort_in_llvm else []
        times: list[list[float]] = []
        for native in (True, False):
            with CompilePool(1, preload=preload, native_tracebacks=native) as pool:
                times.append(
                    [time_crash(pool, folder / "began", function, *args) for _ in range(runs)]
                )
        yield name, times[0], times[1]


def show(what: str, *columns: list[float]) -> None:
    cells = [f"{1000 * statistics.median(each):6.0f} {1000 * max(each):6.0f}" for each in columns]
    print(f"{what:45} {'   '.join(cells)}", flush=True)


def other_jobs(runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of ten jobs of 20 ms on one of two workers, without and with crashes."""
    alone: list[float] = []
    beside: list[float] = []
    with CompilePool(2) as pool:
        for _ in range(runs):
            for times, has_crash in ((alone, False), (beside, True)):
                crash = pool.submit(os.abort) if has_crash else pool.submit(abs, 1)
                began = time.monotonic()
                for _ in range(10):
                    pool.submit(time.sleep, 0.02).result()
                times.append(time.monotonic() - began)
                crash.exception()
    return alone, beside


def print_lines(path: str) -> float:
    """Print 100 MB, to a file if one is named. Returns the seconds that it took."""
    if path:
        fd = os.open(path, os.O_WRONLY)
        os.dup2(fd, 1)
    began = time.monotonic()
    for _ in range(LINES):
        print(LINE)
    return time.monotonic() - began


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def printing(runs: int) -> None:
    captured: list[float] = []
    to_null: list[float] = []
    with CompilePool(1) as pool:
        pool.submit(print_lines, "/dev/null").result()
        supervisor = pool_process("supervisor")
        before = resident_mb(supervisor)
        for _ in range(runs):
            to_null.append(pool.submit(print_lines, "/dev/null").result())
            captured.append(pool.submit(print_lines, "").result())
        grown = resident_mb(supervisor) - before
    show("printing 100 MB, to /dev/null", to_null)
    show("printing 100 MB, captured", captured)
    ratios = [mine / null for mine, null in zip(captured, to_null, strict=True)]
    print(f"  ratio: median {statistics.median(ratios):.2f}, max {max(ratios):.2f}")
    print(f"  the supervisor has grown by {grown:.1f} MB", flush=True)


def dumps(runs: int, folder: Path) -> None:
    with CompilePool(1) as pool:
        future = pool.submit(call, str(build(folder)), "spin", Where.MAIN_THREAD_WITH_GIL)
        times = []
        while len(times) < runs:
            began = time.monotonic()
            if "spin" in pool.dump(future).native_traceback:
                times.append(time.monotonic() - began)
        show("dump of C code that spins with the GIL", times)
        future.cancel()


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["COMPILEPOOL_CRASH_DIR"] = str(folder / "crashes")
        print(f"{'from crash to exception, ms':45} median max, without native stacks: median max")
        for name, native, plain in crash_times(runs, folder):
            show(name, native, plain)
        print("ms: median, max")
        alone, beside = other_jobs(runs)
        show("ten jobs of 20 ms, one after the other", alone)
        show("the same beside a worker that is looked into", beside)
        printing(max(1, runs // 3))
        dumps(runs, folder)


main()
