"""`as_completed` yields what that of the standard library does."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from compilepool import CompilePool, as_completed
from tests.proc import PATIENCE_S, pool_process, wait_until
from tests.programs.gates import Gate, wait_at
from tests.screens import Drawn, progress_on


def test_iteration_that_is_broken_off_leaves_nothing_of_the_progress(gate: Gate) -> None:
    progress = progress_on(Drawn())
    with CompilePool(2) as pool, gate:
        futures: list[Future[Any]] = [pool.submit(wait_at, gate.path), pool.submit(abs, 1)]
        for future in as_completed(futures, progress=progress):
            assert future is futures[1]
            assert wait_until(lambda: bool(progress.tasks))
            break
        assert not progress.tasks
        assert not progress.live.is_started


def test_what_is_looked_at_too_late_is_not_shown_any_more(gate: Gate) -> None:
    progress = progress_on(Drawn())
    with CompilePool(1) as pool, gate:
        future = pool.submit(wait_at, gate.path)
        assert wait_until(future.running)
        # The look waits for what it says, and the iteration does not wait for the look.
        supervisor = pool_process("supervisor")
        os.kill(supervisor, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                list(as_completed([future], 0.3, progress=progress))
            assert wait_until(
                lambda: all(
                    thread.name != "compilepool sampler" for thread in threading.enumerate()
                )
            )
        finally:
            os.kill(supervisor, signal.SIGCONT)
        assert not progress.tasks
        assert not progress.live.is_started


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.mark.parametrize("is_shown", [True, False])
def test_as_completed_yields_what_that_of_the_standard_library_does(
    threads: ThreadPoolExecutor, is_shown: bool
) -> None:
    with CompilePool(2) as pool:
        cancelled: Future[Any] = Future()
        cancelled.cancel()
        cancelled.set_running_or_notify_cancel()  # as executors do
        futures: list[Future[Any]] = [
            pool.submit(abs, -1),
            pool.submit(int, "x"),
            threads.submit(abs, -2),
            threads.submit(int, "y"),
            cancelled,
        ]
        progress = progress_on(Drawn()) if is_shown else False
        yielded = list(as_completed([*futures, futures[0]], progress=progress))
    assert all(future.done() for future in yielded)
    expected = list(concurrent.futures.as_completed(futures))
    assert sorted(map(id, yielded)) == sorted(map(id, expected))


def test_as_completed_yields_each_future_as_soon_as_it_is_done(gate: Gate) -> None:
    with CompilePool(2) as pool, gate:
        slow: Future[Any] = pool.submit(wait_at, gate.path)
        quick: Future[Any] = pool.submit(abs, 1)
        iterator = as_completed([slow, quick], progress=progress_on(Drawn()))
        assert next(iterator) is quick
        assert not slow.done()
        gate.open()
        assert list(iterator) == [slow]


@pytest.mark.parametrize("is_shown", [True, False])
def test_as_completed_raises_timeout_error_as_that_of_the_standard_library_does(
    gate: Gate, is_shown: bool
) -> None:
    progress = progress_on(Drawn())
    with CompilePool(2) as pool, gate:
        quick: Future[Any] = pool.submit(abs, 1)
        quick.result(PATIENCE_S)
        slow: Future[Any] = pool.submit(wait_at, gate.path)
        iterator = as_completed([slow, quick], 0.3, progress=progress if is_shown else False)
        assert next(iterator) is quick
        with pytest.raises(TimeoutError, match=re.escape("1 (of 2) futures unfinished")):
            next(iterator)
    assert not progress.tasks


def test_nothing_is_shown_of_other_executors_but_how_many_are_done(gate: Gate) -> None:
    file = Drawn()
    progress = progress_on(file)
    with ThreadPoolExecutor(1) as threads:
        futures: list[Future[Any]] = [threads.submit(wait_at, gate.path)]
        waiter = threading.Thread(target=lambda: list(as_completed(futures, progress=progress)))
        waiter.start()
        try:
            assert wait_until(lambda: "compiling" in file.screen.text)
            assert len(progress.tasks) == 1
        finally:
            gate.open()
            waiter.join(PATIENCE_S)
    assert not progress.tasks
