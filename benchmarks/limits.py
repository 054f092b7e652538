"""Measure what limits cost, and how well they hold.

    python benchmarks/limits.py [RUNS]

- Timeouts: jobs with a timeout of 0.5 s that never end. The time from a job's start, which its
  worker notes, to the failure of its future, while 16 other jobs run; and the time that the other
  jobs take, compared with running alone.
- Memory limits: jobs with a limit of 512 MiB that take 100 MB per step, as fast as they can. Their
  peak memory.
- The CPU time that the supervisor spends to watch the memory of 32 workers with a child each.
- Accounting: the CPU time in the record of a job that runs `g++`, compared with what the kernel
  reports of the same command (wait4(2), as time(1) uses it).
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.proc import descendants, is_alive, pool_process
from tests.zoo import Where, build, call

from compilepool import CompilePool, JobTimeout, MemoryLimitExceeded

TIMEOUT_S = 0.5
LIMIT = 512 << 20
STEP = 100_000_000
WATCHED = 32
WATCH_S = 10.0
SOURCE = '#include <regex>\nint main() { std::regex r("a"); }\n'

Job = tuple[Callable[..., object], tuple[object, ...]]


def loop() -> None:
    while True:
        pass


def block_all_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    loop()


def ignore_sigterm() -> None:
    inner = "trap '' TERM; sleep 1000; true"
    script = f"trap '' TERM; setsid sh -c \"{inner}\" & sleep 1000; sleep 1000"
    subprocess.run(["sh", "-c", script], check=False)


def work(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


def others(pool: CompilePool) -> float:
    """Return the seconds that 16 jobs of 50 ms take."""
    began = time.monotonic()
    for future in [pool.submit(work, 0.05) for _ in range(16)]:
        future.result()
    return time.monotonic() - began


def timeouts(runs: int, library: str) -> Iterator[tuple[str, list[float], list[float]]]:
    ways: dict[str, Job] = {
        "Python loop": (loop, ()),
        "C with the GIL held": (call, (library, "spin", Where.MAIN_THREAD_WITH_GIL)),
        "all signals blocked": (block_all_signals, ()),
        "children ignore SIGTERM, one setsid'ed": (ignore_sigterm, ()),
    }
    with CompilePool(2) as pool:
        others(pool)
        alone = [others(pool) for _ in range(runs)]
        yield "(16 jobs alone)", [0.0], alone
        for name, (function, arguments) in ways.items():
            ends, beside = [], []
            for _ in range(runs):
                future = pool.options(timeout=TIMEOUT_S).submit(function, *arguments)
                ended: list[float] = []
                future.add_done_callback(lambda _, ended=ended: ended.append(time.time()))  # type: ignore[misc]
                beside.append(others(pool))
                error = future.exception()
                if not isinstance(error, JobTimeout) or not future.record.started:
                    sys.exit(f"expected a timeout, not {error!r}")
                if not error.native_traceback:
                    sys.exit(f"there is no stack: {error}")
                ends.append(ended[0] - future.record.started)
            yield name, ends, beside
        left = [pid for pid in descendants(pool_process("fork server")) if is_alive(pid)]
        if len(left) > 2:
            sys.exit(f"processes are left: {left}")


def take() -> None:
    taken = []
    while True:
        taken.append(b"x" * STEP)


def take_in_grandchild() -> None:
    code = f"taken = []\nwhile True: taken.append(b'x' * {STEP})"
    subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}"; true'], check=False)


def peaks(runs: int) -> Iterator[tuple[str, list[int]]]:
    with CompilePool(1, memory_limit=LIMIT) as pool:
        for name, function in (("itself", take), ("a grandchild", take_in_grandchild)):
            found = []
            for _ in range(runs):
                error = pool.submit(function).exception()
                if not isinstance(error, MemoryLimitExceeded):
                    sys.exit(f"expected too much memory, not {error!r}")
                found.append(error.peak)
            yield name, found


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def watch_cost(memory_limit: str | None) -> float:
    """Return the supervisor's share of a core while 32 workers wait for a child each."""
    with CompilePool(WATCHED, memory_limit=memory_limit) as pool:
        futures = [pool.submit(subprocess.run, ["sleep", "1000"]) for _ in range(WATCHED)]
        while not all(future.running() for future in futures):
            time.sleep(0.1)
        time.sleep(0.5)
        supervisor = pool_process("supervisor")
        before = cpu_s(supervisor)
        time.sleep(WATCH_S)
        share = (cpu_s(supervisor) - before) / WATCH_S
        for future in futures:
            future.cancel()
        return share


def compile_it(source: str) -> float:
    """Return the CPU seconds of the compiler and all its children, as wait4(2) reports them."""
    pid = os.posix_spawnp("g++", ["g++", "-O1", "-c", source, "-o", os.devnull], os.environ)
    _, _, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime


def accounting(runs: int, folder: Path) -> list[float]:
    """Return by what share the record's CPU time exceeds the compiler's, for each run."""
    source = folder / "source.cpp"
    source.write_text(SOURCE)
    found = []
    with CompilePool(1) as pool:
        pool.submit(compile_it, str(source)).result()
        for _ in range(runs):
            future = pool.submit(compile_it, str(source))
            of_compiler = future.result()
            found.append(future.record.cpu_seconds / of_compiler - 1)
    return found


def show(what: str, *columns: list[float]) -> None:
    cells = [f"{min(x):7.3f} {statistics.median(x):7.3f} {max(x):7.3f}" for x in columns]
    print(f"{what:42} {'   '.join(cells)}", flush=True)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("s: min, median, max".ljust(42), "start to failure", " " * 8, "16 other jobs")
        for way, ends, beside in timeouts(runs, str(build(folder))):
            show(way, ends, beside)
        for who, found in peaks(runs):
            show(f"peak of {who}, MiB", [peak / (1 << 20) for peak in found])
        print(f"supervisor, % of a core: watching {WATCHED} workers with a child each,")
        print(f"  without a limit {100 * watch_cost(None):.2f},", end=" ", flush=True)
        print(f"with one of 8 GiB {100 * watch_cost('8GiB'):.2f},", end=" ", flush=True)
        print(f"of 512 MiB {100 * watch_cost('512MiB'):.2f}", flush=True)
        show("CPU in the record, % more than g++'s", [100 * x for x in accounting(runs, folder)])


if __name__ == "__main__":
    main()
