"""Clients that fork while they have a pool. The argument names the one to run.

Each forked child exits as any program does, so that what Python does at exit runs in it as well.
"""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed
from typing import Any

from compilepool import CompilePool, PoolClosed

PATIENCE_S = 15.0  # less than the tests have

# From Python 3.12 on, for what these programs are all about.
warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)


def say(text: str) -> None:
    # One write, so that lines of several processes do not mix.
    os.write(1, f"{text}\n".encode())


def pause(path: str, value: int) -> int:
    """Run until somebody opens the FIFO for writing, and closes it."""
    os.write(1, b"paused\n")
    with open(path) as gate:
        gate.read()
    return value


def add(a: int, b: int) -> int:
    return a + b


def in_child(do: Callable[[], object]) -> int:
    """Fork a child that does this and then exits, in order; returns its exit code."""
    pid = os.fork()
    if pid == 0:
        # A bound for whatever may hang in it.
        signal.alarm(int(PATIENCE_S))
        do()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def outcome(future: Future[Any]) -> str:
    try:
        return f"{future.result(PATIENCE_S)}"
    except (PoolClosed, CancelledError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


def copies() -> None:
    """Jobs of the parent run, wait and have ended when it forks."""
    gate = sys.argv[2]
    pool = CompilePool(1, capture=False)
    ended = pool.submit(add, 1, 2)
    ended.result()
    running = pool.submit(pause, gate, 5)
    waiting = pool.submit(add, 3, 4)
    sys.stdin.readline()  # the job runs

    def child() -> None:
        say(f"ended: {outcome(ended)}")
        say(f"running: {outcome(running)}")
        say(f"waiting: {outcome(waiting)}")
        try:
            pool.submit(add, 5, 6)
        except PoolClosed as error:
            say(f"submit: {error}")
        say(f"cancel: {running.cancel()}")
        pool.shutdown()
        with CompilePool(1) as own:
            say(f"own: {own.submit(add, 7, 8).result()}")
        left = CompilePool(1)  # for the exit to end
        say(f"own, left: {left.submit(add, 9, 10).result()}")

    say(f"child exited with {in_child(child)}")
    with open(gate, "w"):
        pass  # go on, job
    say(f"parent: {outcome(running)}, {outcome(waiting)}, {pool.submit(add, 1, 1).result()}")
    pool.shutdown()


def with_callback() -> None:
    """The callback of a future needs a lock, which another thread holds when the parent forks."""
    gate = sys.argv[2]
    pool = CompilePool(1, capture=False)
    lock = threading.Lock()

    def call_back(future: Future[int]) -> None:
        with lock:
            say(f"called back with {outcome(future)}")

    running = pool.submit(pause, gate, 5)
    running.add_done_callback(call_back)
    sys.stdin.readline()
    lock.acquire()
    code = in_child(lambda: say(f"child: {outcome(running)}"))
    lock.release()
    say(f"child exited with {code}")
    with open(gate, "w"):
        pass
    running.result()
    pool.shutdown()


class Slow:
    """Takes for ever to unpickle, in the client."""

    def __reduce__(self) -> Any:
        return (unpickle, ())


is_unpickling = threading.Event()
may_go_on = threading.Event()


def unpickle() -> str:
    from __main__ import is_unpickling, may_go_on  # this process's, not a copy by value

    is_unpickling.set()
    may_go_on.wait(PATIENCE_S)
    return "unpickled"


def while_reading() -> None:
    """A result is just being read when the parent forks."""
    pool = CompilePool(1)
    arriving = pool.submit(Slow)
    is_unpickling.wait(PATIENCE_S)
    code = in_child(lambda: say(f"child: {outcome(arriving)}"))
    may_go_on.set()
    say(f"child exited with {code}")
    say(f"parent: {outcome(arriving)}")
    pool.shutdown()


def within_as_completed() -> None:
    """The child goes on with an iteration that the parent had begun."""
    gate = sys.argv[2]
    pool = CompilePool(1, capture=False)
    futures = [pool.submit(add, 1, 2), pool.submit(pause, gate, 5), pool.submit(add, 3, 4)]
    iterator = as_completed(futures)
    say(f"first: {outcome(next(iterator))}")
    sys.stdin.readline()

    def child() -> None:
        for future in iterator:
            say(f"child: {type(future.exception()).__name__}")

    say(f"child exited with {in_child(child)}")
    with open(gate, "w"):
        pass
    say(f"parent: {sorted(future.result() for future in iterator)}")
    pool.shutdown()


def under_load() -> None:
    """Eight threads use the pool while the parent forks, again and again."""
    pool = CompilePool(2)
    is_enough = threading.Event()
    wrong: list[object] = []
    kept = [pool.submit(add, i, i) for i in range(8)]

    def use(number: int) -> None:
        while not is_enough.is_set():
            kept[number] = future = pool.submit(add, number, number)
            if future.result() != 2 * number:
                wrong.append(future)

    def child() -> None:
        for number, future in enumerate(list(kept)):
            said = outcome(future)
            if said != str(2 * number) and not said.startswith("PoolClosed"):
                say(f"child: {said}")
        try:
            pool.submit(add, 1, 1)
        except PoolClosed:
            return
        say("child: submit did not raise")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    codes = {in_child(child) for _ in range(30)}
    is_enough.set()
    for thread in threads:
        thread.join()
    say(f"exit codes {codes}, wrong results {wrong}")
    pool.shutdown()


def daemonic() -> None:
    """The pool is in a daemonic process of multiprocessing, which may have no such children."""

    def child() -> None:
        with CompilePool(1) as pool:
            say(f"in daemonic child: {pool.submit(add, 1, 2).result()}")
        # One more, which runs when the child ends, without atexit hooks.
        left = CompilePool(1)
        left.submit(signal.pause)
        left.submit(signal.pause)

    process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
    process.start()
    process.join()
    say(f"exit code {process.exitcode}")


globals()[sys.argv[1]]()
