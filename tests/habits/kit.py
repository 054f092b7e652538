"""What a habit has in its hands: the program's pools, jobs, chance and report."""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.habits.habit import HABITS, Point
from tests.habits.jobs import JOBS, Job
from tests.habits.plan import Plan
from tests.habits.report import Entry, Report

if TYPE_CHECKING:
    from compilepool import CompilePool
    from compilepool.client.future import CompileFuture

PATIENCE_S = 20.0
"""How long a program waits for a future."""

_clock = time.monotonic
_wait = threading.Event.wait


class Tick(Exception):
    """What the handler of a timer raises, anywhere."""


class Kit:
    """One program at work.

    Attributes:
        plan: what it shall do.
        directory: its own folder.
        executable: the interpreter, as it was at first.
        report: where it reports.
        options: those of its pool.
        pools: the pools that it has.
        futures: what it has submitted, by slot of the report.
        is_ending: set when its main thread is about to end.
        kept: what lives as long as the program.
        at_last: what it does when all jobs have ended.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.executable = sys.executable
        self.report = Report(str(directory / "report"))
        self.options: dict[str, Any] = {}
        self.pools: list[CompilePool] = []
        self.futures: dict[int, CompileFuture[Any]] = {}
        self.is_ending = threading.Event()
        self.kept: list[Any] = []
        self.at_last: list[Callable[[], object]] = []
        self._pid = os.getpid()
        self._jobs: dict[int, Job] = {}
        self._chances: dict[str, random.Random] = {}
        self._stage = self.report.write(Entry("stage", "begin"))

    def chance(self, of: str) -> random.Random:
        """A source of chance for each habit, so that it does the same without the others."""
        if of not in self._chances:
            self._chances[of] = random.Random(f"{self.plan.seed} {of}")
        return self._chances[of]

    def stage(self, name: str) -> None:
        """Report where the program is."""
        self.report.write(Entry("stage", name), self._stage)

    def fault(self, text: str) -> None:
        """Report what must not be."""
        self.report.write(Entry("fault", text))

    def is_allowed(self, error: BaseException) -> bool:
        """Whether a habit of the plan explains an error."""
        return any(type(error).__name__ in habit.allows for habit in self.plan.chosen())

    def own(self, pid: int) -> None:
        """Report a process of the program's own that may outlive it."""
        self.report.write(Entry("own", str(pid)))

    def do(self, point: Point) -> None:
        """Do what the plan has for a point."""
        for name in self.plan.habits:
            if HABITS[name].point == point:
                self.stage(f"{point}: {name}")
                try:
                    HABITS[name].do(self)
                except Exception as error:
                    if point == "end" or not self.is_allowed(error):
                        raise
        self.stage(f"after {point}")

    def new_pool(self) -> CompilePool:
        """Make a pool with the program's options."""
        from compilepool import CompilePool

        pool = CompilePool(**{"max_workers": 2, **self.options})
        self.pools.append(pool)
        return pool

    def submit(self, kind: str = "", of: str = "jobs") -> CompileFuture[Any] | None:
        """Submit a job of a kind, or by chance; None if it is refused, or there is no pool."""
        if not self.pools:
            return None
        chance = self.chance(of)
        job = JOBS[kind or chance.choice(self.plan.jobs)]
        pool = chance.choice(self.pools)
        has_callback = chance.random() < 0.6
        slot = self.report.write(Entry("job", job.name, "submitting"))
        submitter = pool.options(**job.options) if job.options else pool
        try:
            future = submitter.submit(job.by_value() if self.plan.by_value else job.do, *job.args)
        except Tick:
            raise
        except Exception as error:  # noqa: BLE001 - it is reported
            self._tell(slot, job, "refused", error)
            return None
        self.report.write(Entry("job", job.name, "submitted"), slot)
        self._jobs[slot] = job
        self.futures[slot] = future
        if has_callback:
            future.add_done_callback(lambda _: self.look_at(slot, 0))
        for habit in self.plan.chosen():
            if habit.point == "callback":
                future.add_done_callback(functools.partial(habit.do, self))
        return future

    def look_at(self, slot: int, patience_s: float = PATIENCE_S) -> None:
        """Report how a future has ended, after waiting for it."""
        future, job = self.futures[slot], self._jobs[slot]
        if os.getpid() != self._pid:
            return
        try:
            error = future.exception(patience_s)
        except CancelledError as cancelled:
            self._tell(slot, job, "error", cancelled)
        except TimeoutError:
            state = "left" if patience_s else "pending"
            self.report.write(Entry("job", job.name, state, f"{patience_s} s"), slot)
        else:
            if error is not None:
                self._tell(slot, job, "error", error)
            elif job.is_right(future.result()):
                self.report.write(Entry("job", job.name, "result"), slot)
            else:
                self._tell(slot, job, "wrong", future.result())

    def cancel_endless(self) -> None:
        """Cancel the jobs that never end."""
        for slot, future in list(self.futures.items()):
            if self._jobs[slot].is_endless:
                future.cancel()

    def wait_for_all(self) -> None:
        """Wait until all futures have ended, and report how."""
        self.cancel_endless()
        self.look_at_all(PATIENCE_S)

    def look_at_all(self, patience_s: float) -> None:
        """Report how all futures have ended, after waiting for each."""
        for slot in list(self.futures):
            self.look_at(slot, patience_s)

    def do_last(self) -> None:
        """Do what habits have kept for when all jobs have ended."""
        while self.at_last:
            self.at_last.pop()()

    def open(self, name: str) -> int:
        """A file of its own, which stays open."""
        return os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def look_back(self) -> None:
        """At the very end: report what has not ended."""
        if os.getpid() == self._pid:
            self.look_at_all(0)
            self.stage("end")

    def look_back_and_exit(self, status: int) -> None:
        """Report, and exit at once."""
        self.cancel_endless()
        self.look_at_all(PATIENCE_S)
        self.stage("end")
        os._exit(status)

    def in_child(self, do: Callable[[], None], *, is_waited_for: bool = True) -> int:
        """Fork a child that does this and exits like a program; returns its pid."""
        region = self.report.next_region()
        pid = os.fork()
        if pid == 0:
            self.report.move_to(region)
            self._stage = self.report.write(Entry("stage", "in a child"))
            do()
            self.stage("child done")
            raise SystemExit(0)
        self.own(pid)
        if is_waited_for:
            deadline = _clock() + PATIENCE_S
            while not _has_ended(pid):
                if _clock() > deadline:
                    self.fault("a forked child hangs")
                    break
                _wait(threading.Event(), 0.01)
        return pid

    def child_looks_back(self) -> None:
        """In a forked child: all futures have ended, as copies."""
        for slot, future in list(self.futures.items()):
            if not future.done():
                self.fault(f"a forked child's copy of {self._jobs[slot].name} has not ended")

    def _tell(self, slot: int, job: Job, state: str, what: object) -> None:
        try:
            text = str(what).partition("\n")[0]
        except Exception as error:  # noqa: BLE001 - some jobs raise errors without words
            text = f"no words: {type(error).__name__}"
        self.report.write(Entry("job", job.name, state, f"{type(what).__name__}: {text}"), slot)


def stop_timers() -> None:
    """Stop what would signal the next program, or this one when it has no handlers any more."""
    for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # somebody else has reaped it, as some habits do
        return True
