"""`Timer` calls when it has been quiet for long enough, in the ways that PyTorch tests its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from compilepool.integrations.torch.compile_worker.timer import Timer
from tests.proc import PATIENCE_S, wait_until

NEVER_S = 1e6
SOON_S = 0.02


class Calls:
    """What a timer calls; counts, and may do something."""

    def __init__(self) -> None:
        self.count = 0
        self.do: Callable[[], None] = lambda: None
        self._was_called = threading.Semaphore(0)

    def __call__(self) -> None:
        self.count += 1
        try:
            self.do()
        finally:
            self._was_called.release()

    def wait(self) -> bool:
        """Wait for the next one."""
        return self._was_called.acquire(timeout=PATIENCE_S)


def has_no_thread() -> bool:
    return all(thread.name != "compilepool timer" for thread in threading.enumerate())


@pytest.fixture
def calls() -> Iterator[Calls]:
    yield Calls()
    assert wait_until(has_no_thread)


def test_a_timer_calls_when_it_was_quiet_for_long_enough(calls: Calls) -> None:
    timer = Timer(SOON_S, calls)
    recorded = time.monotonic()
    timer.record_call()
    assert calls.wait()
    assert time.monotonic() - recorded >= SOON_S
    timer.quit()
    assert calls.count == 1


def test_a_timer_calls_again_after_each_record(calls: Calls) -> None:
    timer = Timer(SOON_S, calls)
    for count in range(1, 11):
        timer.record_call()
        assert calls.wait()
        # Nothing more comes of the same record: who would call is gone.
        assert wait_until(has_no_thread)
        assert calls.count == count
    timer.quit()


def test_a_timer_does_not_call_before_its_time(calls: Calls) -> None:
    timer = Timer(NEVER_S, calls)
    timer.record_call()
    assert not has_no_thread()
    timer.quit()
    assert wait_until(has_no_thread)
    assert calls.count == 0


def test_each_of_many_records_puts_the_call_off(calls: Calls) -> None:
    duration_s = 0.1
    timer = Timer(duration_s, calls)
    recorded = time.monotonic()
    end = recorded + 3 * duration_s
    quiet: list[float] = []
    pauses: list[float] = []
    calls.do = lambda: quiet.append(time.monotonic() - recorded)

    def record() -> bool:
        nonlocal recorded
        now = time.monotonic()
        pauses.append(now - recorded)
        recorded = now
        timer.record_call()
        return now > end

    assert wait_until(record)
    assert calls.wait()
    assert wait_until(has_no_thread)
    # It may call meanwhile if this thread did not get to run for so long.
    assert (calls.count == 1 and quiet[0] >= duration_s) or max(pauses) >= duration_s
    timer.quit()


def test_hundreds_of_records_at_once_make_one_call(calls: Calls) -> None:
    timer = Timer(0.5, calls)
    for _ in range(400):
        timer.record_call()
    assert sum(thread.name == "compilepool timer" for thread in threading.enumerate()) == 1
    assert calls.wait()
    assert wait_until(has_no_thread)
    assert calls.count == 1
    timer.quit()


def test_threads_that_record_at_once_make_one_thread_only(calls: Calls) -> None:
    timer = Timer(NEVER_S, calls)
    barrier = threading.Barrier(8)

    def record() -> None:
        barrier.wait(PATIENCE_S)
        for _ in range(100):
            timer.record_call()

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sum(thread.name == "compilepool timer" for thread in threading.enumerate()) == 1
    timer.quit()


def test_the_call_may_quit(calls: Calls) -> None:
    timer = Timer(SOON_S, calls)
    calls.do = timer.quit
    timer.record_call()
    assert calls.wait()
    assert wait_until(has_no_thread)
    timer.record_call()
    assert has_no_thread()
    assert calls.count == 1


def test_the_call_may_record_and_is_made_again(calls: Calls) -> None:
    timer = Timer(SOON_S, calls)

    def record_twice() -> None:
        if calls.count < 3:
            timer.record_call()

    calls.do = record_twice
    timer.record_call()
    for _ in range(3):
        assert calls.wait()
    assert wait_until(has_no_thread)
    assert calls.count == 3
    timer.quit()


def test_what_is_recorded_after_quit_does_nothing(calls: Calls) -> None:
    timer = Timer(0.0, calls)
    timer.quit()
    timer.quit()
    timer.record_call()
    assert has_no_thread()
    assert calls.count == 0


def test_a_timer_that_was_never_used_has_no_thread(calls: Calls) -> None:
    timer = Timer(SOON_S, calls)
    assert has_no_thread()
    timer.quit()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_call_that_raises_does_not_end_the_timer(calls: Calls) -> None:
    timer = Timer(SOON_S, calls)

    def fail() -> None:
        raise ValueError("of the user's")

    calls.do = fail
    timer.record_call()
    assert calls.wait()
    assert wait_until(has_no_thread)
    calls.do = lambda: None
    timer.record_call()
    assert calls.wait()
    timer.quit()


def test_a_duration_may_be_longer_than_a_lock_can_wait(calls: Calls) -> None:
    timer = Timer(float("inf"), calls)
    timer.record_call()
    timer.record_call()
    timer.quit()
    assert wait_until(has_no_thread)
    assert calls.count == 0
