"""Programs that share a pool, and all its processes, die at random. No surviving job is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import signal
import threading
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S, children, command_line, pids_with_environment, wait_until
from tests.sharing import Failed, Program, nothing_is_left, programs, supervisors

JOBS = int(os.environ.get("COMPILEPOOL_CHAOS_JOBS", "240"))
"""How many jobs, all programs together."""

PROGRAMS = 8
BATCH = 10
OPTIONS = "max_workers=2, shared=True, single_flight=True"
KINDS = ("worker",) * 10 + ("fork server",) * 3 + ("supervisor",) * 2 + ("program",) * 2

BATCH_CODE = """
from compilepool import CompilePoolError
from tests.processes.test_shared_chaos import work
rights, typed = 0, {{}}
futures = {{n: pool.submit(work, n) for n in range({first}, {first} + {count})}}
for n, future in futures.items():
    error = future.exception({patience})
    if error is None:
        assert future.result() == work(n), (n, len(future.result()))
        rights += 1
    else:
        assert isinstance(error, CompilePoolError), repr(error)
        typed[type(error).__name__] = typed.get(type(error).__name__, 0) + 1
futures = {{}}
"""


def work(number: int) -> bytes:
    """Small, medium and large results; some jobs take some time, and some are flights."""
    if number % 7 == 0:
        select.select([], [], [], 0.01)
    return bytes([number % 256]) * (10, 10, 10, 20_000, 300_000)[number % 5]


class Ranks:
    """The programs. One that is killed is followed by another."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = [Program(OPTIONS, RANK=str(rank)) for rank in range(PROGRAMS)]
        self.killed: list[Program] = []
        self.rights = 0
        self.typed: dict[str, int] = {}
        self.lost_with_program = 0
        self.errors: list[BaseException] = []

    @property
    def ended(self) -> int:
        """How many jobs have ended, in whatever way."""
        return self.rights + sum([*self.typed.values()]) + self.lost_with_program

    def work_all(self, rank: int) -> None:
        try:
            for first in range(0, JOBS // PROGRAMS, BATCH):
                self._work(rank, first)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.errors.append(error)

    def _work(self, rank: int, first: int) -> None:
        program = self.now[rank]
        # Half of the jobs are the same for all, so they are flights that several wait for.
        base = first if first % (2 * BATCH) else 1000 * rank + first
        try:
            program.run(BATCH_CODE.format(first=base, count=BATCH, patience=PATIENCE_S))
            rights, typed = program.run("[rights, typed]")
        except (Failed, BrokenPipeError) as error:
            with self.lock:
                if program not in self.killed or error.args[0] not in ("Ended", errno.EPIPE):
                    raise
                self.now[rank] = Program(OPTIONS, RANK=str(rank))
                self.lost_with_program += BATCH
            program.close()
            return
        with self.lock:
            self.rights += rights
            for name, count in typed.items():
                self.typed[name] = self.typed.get(name, 0) + count


def kill_at_random(ranks: Ranks, stop: threading.Event, counts: dict[str, int]) -> None:
    chance = random.Random(int(os.environ.get("COMPILEPOOL_CHAOS_SEED", "17")))
    mark = f"COMPILEPOOL_TEST={os.environ['COMPILEPOOL_TEST']}"
    while not stop.wait(chance.uniform(0.0, 0.15)):
        kind = chance.choice(KINDS)
        if kind == "program":
            with ranks.lock:
                victim = chance.choice(ranks.now)
                ranks.killed.append(victim)
                os.kill(victim.pid, signal.SIGKILL)
        else:
            pids = [each for each in pids_with_environment(mark) if kind in command_line(each)]
            pids = [each for each in pids if command_line(each) == f"compilepool {kind}"]
            if not pids:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
        counts[kind] = counts.get(kind, 0) + 1
        # How long the blow takes to mend is the machine's business.
        before = ranks.ended
        wait_until(lambda before=before: ranks.ended > before or stop.is_set())  # type: ignore[misc]


@pytest.mark.timeout(600)
def test_whatever_dies_every_job_of_a_program_that_lives_ends_right_or_with_a_typed_error(
    runtime: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = Ranks()
    stop = threading.Event()
    counts: dict[str, int] = {}
    killer = threading.Thread(target=kill_at_random, args=(ranks, stop, counts))
    workers = [threading.Thread(target=ranks.work_all, args=(rank,)) for rank in range(PROGRAMS)]
    try:
        killer.start()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        stop.set()
        killer.join()
        assert not ranks.errors, ranks.errors
        total = ranks.ended
        with capsys.disabled():
            if "COMPILEPOOL_CHAOS_JOBS" in os.environ:
                print(total, ranks.rights, ranks.typed, ranks.lost_with_program, counts)
        assert total == JOBS // PROGRAMS // BATCH * BATCH * PROGRAMS
        assert ranks.rights
        for rank in ranks.now:  # all at once
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank.pid, signal.SIGKILL)
        assert wait_until(lambda: not supervisors())
        # Who was killed with the lock has left its files, which the next program removes.
        with programs(1) as (last,):
            assert last.run("pool.submit(jobs.sleep, 0).result()") == 0
            last.end()
        assert nothing_is_left(runtime)
    finally:
        stop.set()
        for program in [*ranks.now, *ranks.killed]:
            program.close()
        assert not [pid for pid in children(os.getpid()) if "compilepool" in command_line(pid)]
