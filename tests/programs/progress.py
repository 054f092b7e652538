"""A client that shows how its jobs get on, on the terminal that is its error output.

Arguments: who shows it, "pool", "as_completed" or "both"; a scenario; a folder with a gate for each
job to wait at. It writes `done NAME` for each job that has ended, and `the end` at last.
"""

import fcntl
import os
import select
import signal
import sys
import termios
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

from compilepool import CompileFuture, CompilePool, as_completed, report_phase

# From Python 3.12 on, for what this program does on purpose.
warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)

WAY, SCENARIO, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
ODD = "\x1b]0;taken\x07\r\n\x1b[2J[/red]"  # retitles, rings, clears, and is wrong markup


def work(gate: Path, phase: str) -> None:
    report_phase(phase)
    with gate.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)


def fail(gate: Path, phase: str, text: str) -> None:
    work(gate, phase)
    raise LookupError(text)


def ended(futures: Iterable[CompileFuture[Any]]) -> Iterator[Future[Any]]:
    """The futures as they are done; progress is shown by this or by the pool."""
    if WAY != "pool":
        yield from as_completed(futures, progress=True)
        return
    left: set[Future[Any]] = set(futures)
    while left:
        # Not in one go: a signal that comes just before the system call is seen after it only.
        done, left = wait(left, timeout=0.1, return_when=FIRST_COMPLETED)
        yield from done


def fork() -> None:
    """Fork children that write to files, and exit as any program does."""
    codes = []
    for number in range(5):
        pid = os.fork()
        if pid == 0:
            signal.alarm(15)  # a bound for whatever may hang in it
            file = os.open(FOLDER / f"child {number}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, 1)
            os.dup2(file, 2)
            print("said by the child")
            print("and on its error output", file=sys.stderr)
            sys.exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(f"children: {codes}")


def run_jobs(pool: CompilePool) -> None:
    """Of three jobs, two run at once, and the last fails."""
    phase = ODD if SCENARIO == "odd" else "ptxas"
    names = [f"{name}{ODD}" if SCENARIO == "odd" else name for name in "abc"]
    futures = [
        pool.options(name=names[0]).submit(work, FOLDER / "a", phase),
        pool.options(name=names[1]).submit(work, FOLDER / "b", phase),
        pool.options(name=names[2]).submit(fail, FOLDER / "c", phase, f"no register {ODD}"),
    ]
    kept.append(ended(futures))
    for future in kept[0]:
        print(f"done {'abc'[[*map(id, futures)].index(id(future))]}")
        if SCENARIO == "fork" and future is futures[0]:
            fork()
        elif SCENARIO == "exit":
            sys.exit(3)


def run_unseen(pool: CompilePool) -> None:
    """For long enough that it would be shown, if there were a terminal."""
    futures: list[CompileFuture[Any]] = [
        pool.submit(select.select, [], [], [], 0.5),
        pool.submit(int, "no number"),
    ]
    for _ in ended(futures):
        pass


def main() -> None:
    # The terminal is its standard input; it leads its session already.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    pool = CompilePool(2, progress=WAY != "as_completed")
    if SCENARIO == "exit":
        run_jobs(pool)
    with pool:
        (run_unseen if SCENARIO == "unseen" else run_jobs)(pool)
    print("the end")


kept: list[Iterator[Future[Any]]] = []  # for the interpreter to clear away
main()
