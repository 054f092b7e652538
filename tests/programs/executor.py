"""A client of a stock `ProcessPoolExecutor` whose workers call `worker_initializer`.

Arguments: multiprocessing context, kind of job, the thread that uses the executor first: "main", or
"other" for one that has ended before anything else happens. It does what lines on its stdin tell.
"""

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import compilepool

WORKERS = 2

kept: list[ProcessPoolExecutor] = []


def say(text: str) -> None:
    # One write, so that lines of several processes do not mix.
    os.write(1, f"{text}\n".encode())


def idle() -> None:
    """Return; but so slowly that each worker gets one of these jobs."""
    say(f"ready {os.getpid()}")
    time.sleep(0.2)


def busy() -> None:
    say(f"ready {os.getpid()}")
    time.sleep(1000)


def holds_gil() -> None:
    say(f"ready {os.getpid()}")
    ctypes.PyDLL(None).sleep(1000)


def crash() -> None:
    ctypes.string_at(0)


def identity() -> tuple[bool, bool]:
    return compilepool.in_toplevel_process(), compilepool.has_parent_changed()


JOBS: dict[str, Callable[[], None]] = {"idle": idle, "busy": busy, "holds_gil": holds_gil}


def main() -> None:
    context, job, thread = sys.argv[1:]
    if os.isatty(0):
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        attributes = termios.tcgetattr(0)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, attributes)
    executor = ProcessPoolExecutor(
        # One worker more than there are endless jobs.
        WORKERS + (job != "idle"),
        mp_context=multiprocessing.get_context(context),
        initializer=compilepool.worker_initializer,
        initargs=(os.getpid(),),
    )
    # CPython 3.13.0 deadlocks where an executor is collected while it notices that it is broken.
    kept.append(executor)
    futures: list[Future[None]] = []

    def begin() -> None:
        for _ in range(WORKERS):
            futures.append(executor.submit(JOBS[job]))
        if job == "idle":
            for future in futures:
                future.result()
        # Started by this thread as well, where workers are started one by one.
        executor.submit(os.getpid).result()

    if thread == "other":
        first = threading.Thread(target=begin)
        first.start()
        first.join()
    else:
        begin()
    say("begun")
    serve(executor)


def serve(executor: ProcessPoolExecutor) -> None:
    for line in sys.stdin:
        command = line.strip()
        if command == "work":
            say(f"worked {executor.submit(os.getpid).result()}")
        elif command == "identity":
            say(f"worker {executor.submit(identity).result()}, here {identity()}")
        elif command == "crash":
            with contextlib.suppress(BrokenProcessPool):
                executor.submit(crash).result()
                say("not broken")
            say("broken")
        elif command == "shutdown":
            executor.shutdown()
            say("shut down")
        else:
            break


if __name__ == "__main__":
    # Forked workers inherit it, and would say so as well.
    signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
    main()
