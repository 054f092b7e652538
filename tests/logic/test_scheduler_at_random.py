"""The scheduler and workers to which everything happens at random."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from compilepool.supervisor.rules.actions import KillWorker, StartWorker
from compilepool.supervisor.rules.dispatch import MAX_AHEAD, SHORT_RUN_S
from compilepool.supervisor.rules.queue import MAX_RERUNS
from compilepool.supervisor.rules.staffing import (
    MAX_IDLE_DEATHS,
    MAX_START_FAILURES,
    StaffingPolicy,
)
from tests.logic.pool_model import READY, TORN_DOWN, PoolModel

ROUNDS = int(os.environ.get("COMPILEPOOL_TEST_ROUNDS", "500"))


class Pool(PoolModel):
    """Everything happens to the processes, in any order."""

    @initialize(
        max_workers=st.integers(1, 3),
        is_warm=st.booleans(),
        min_workers=st.sampled_from([0, 0, 1, 3]),
        idle_timeout_s=st.sampled_from([None, 0.02, 0.2]),
        max_jobs=st.sampled_from([None, None, 1, 2, 5]),
    )
    def start(
        self,
        max_workers: int,
        is_warm: bool,
        min_workers: int,
        idle_timeout_s: float | None,
        max_jobs: int | None,
    ) -> None:
        policy = StaffingPolicy(min(min_workers, max_workers), idle_timeout_s, max_jobs)
        self.reset(max_workers, policy)
        if is_warm:
            # All are ready, and the last job was short.
            self.submit(True, max_workers, priority=0, retries=0, expected=0, client=1)
            for pick in range(max_workers):
                self.go_on(pick, steps=3)
            self.hear_all()

    def choose(self, pick: int, candidates: Sequence[int]) -> int | None:
        return candidates[pick % len(candidates)] if candidates else None

    # What clients do

    @rule(
        may_go_ahead=st.booleans(),
        count=st.integers(1, 4),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        retries=st.sampled_from([0, 0, 1, 2]),
        expected=st.sampled_from([0, 0, 1, 5]),
        client=st.sampled_from([1, 1, 2, 3]),
    )
    def submit(
        self,
        may_go_ahead: bool,
        count: int,
        priority: int,
        retries: int,
        expected: int,
        client: int,
    ) -> None:
        for _ in range(count):
            job = self.note_submitted(may_go_ahead, priority, retries, expected, client)
            self.scheduler.submit(
                job, may_go_ahead=may_go_ahead, priority=priority, retries=retries, client=client
            )
        self.perform()

    def note_submitted(
        self, may_go_ahead: bool, priority: int, retries: int, expected: int, client: int
    ) -> int:
        """Returns the new job."""
        job = len(self.may_go_ahead) + 1
        self.may_go_ahead[job] = may_go_ahead
        self.priority[job] = priority
        self.retries[job] = retries
        self.expected[job] = expected
        self.allowed_runs[job] = 1 + MAX_RERUNS + retries
        self.clients[job] = [client]
        self.note_in_line(job, client)
        self.was_told_to_quiesce &= self.is_broken  # then it fails, and wakes nobody
        return job

    def note_in_line(self, job: int, client: int) -> None:
        self.lines.setdefault((self.priority[job], client), []).append(job)
        self.overtaken.clear()

    @precondition(lambda self: self.wanted())
    @rule(
        pick=st.integers(0, 30),
        client=st.sampled_from([1, 2, 3]),
        priority=st.sampled_from([0, 0, 1]),
    )
    def join(self, pick: int, client: int, priority: int) -> None:
        job = self.choose(pick, self.wanted())
        assert job is not None
        self.note_joined(job, client, priority)
        self.scheduler.join(job, client=client, priority=priority)
        self.perform()

    def note_joined(self, job: int, client: int, priority: int) -> None:
        is_raised = priority > self.priority[job]
        is_new = client not in self.clients[job]
        self.joined.add(job)
        if is_new:
            self.clients[job].append(client)
        if is_raised:
            self.priority[job] = priority
            for each in self.clients[job]:
                self.note_in_line(job, each)
        elif is_new:
            self.note_in_line(job, client)
        self.was_told_to_quiesce &= self.is_broken

    def wanted(self) -> list[int]:
        """The jobs that have not ended and are not cancelled."""
        return sorted(set(self.may_go_ahead) - set(self.ends) - self.cancelled)

    @rule(more=st.integers(-1, 1))
    def raise_the_limit(self, more: int) -> None:
        if self.max_workers + more <= 4:
            self.scheduler.raise_limit(self.max_workers + more)
            self.max_workers = max(self.max_workers, self.max_workers + more)
            self.perform()

    @precondition(lambda self: self.scheduler.unfinished)
    @rule(pick=st.integers(0, 30))
    def cancel(self, pick: int) -> None:
        self.cancel_one_of(pick, set(self.may_go_ahead) - set(self.ends))

    @precondition(lambda self: self.jobs_at_workers())
    @rule(pick=st.integers(0, 5), steps=st.integers(0, 4))
    def cancel_what_a_worker_has(self, pick: int, steps: int) -> None:
        """What the workers do just before has not been heard when the cancellation comes."""
        for worker in range(len(self.alive())):
            self.go_on(worker, steps)
        self.cancel_one_of(pick, self.jobs_at_workers())

    def cancel_one_of(self, pick: int, jobs: set[int]) -> None:
        job = self.choose(pick, sorted(jobs))
        assert job is not None
        self.cancel_job(job)
        self.perform()

    def cancel_job(self, job: int) -> None:
        self.cancelled.add(job)
        self.overtaken.clear()
        self.scheduler.cancel(job)

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 30))
    def cancel_what_has_ended(self, pick: int) -> None:
        job = self.choose(pick, sorted(self.ends))
        assert job is not None
        self.perform()
        self.scheduler.cancel(job)
        assert self.next_actions() == []

    @rule()
    def cancel_queued(self) -> None:
        waiting = self.waiting()
        for job in sorted(waiting - self.cancelled):
            self.cancel_job(job)
        self.perform()
        assert waiting <= set(self.ends)

    @rule()
    def warm_up(self) -> None:
        is_doing_well = not self.starts_that_fail
        self.was_told_to_quiesce &= self.is_broken
        self.scheduler.warm_up(self.now)
        self.quiet_since = None
        for worker in self.idle():
            self.processes[worker].known_since = self.now
        self.perform()
        if is_doing_well and not self.is_broken:
            assert not self.has_room()

    @rule(keeps_fork_server=st.booleans())
    def quiesce(self, keeps_fork_server: bool) -> None:
        self.was_told_to_quiesce = True
        self.scheduler.quiesce(keeps_fork_server=keeps_fork_server)
        self.perform()
        assert not self.idle() or self.waiting()

    @rule()
    def reload(self) -> None:
        had_fork_server = self.has_fork_server
        before = self.generation
        self.begin_reload()
        self.perform()
        assert self.generation == before + had_fork_server
        for process in self.processes.values():
            assert process.generation == self.generation or not process.socket

    def begin_reload(self) -> None:
        self.is_broken = False
        self.start_failures = 0
        for process in self.processes.values():
            process.is_replaceable |= not (process.is_known_crashing or process.is_doomed)
        self.scheduler.reload()

    @rule(are_outgrown=st.booleans())
    def grow(self, are_outgrown: bool) -> None:
        self.are_outgrown = are_outgrown

    @rule(are_slow=st.booleans())
    def tear_down_slowly(self, are_slow: bool) -> None:
        self.are_slow_to_tear_down = are_slow

    # What workers do

    @precondition(lambda self: self.alive())
    @rule(pick=st.integers(0, 2), steps=st.integers(1, 4))
    def go_on(self, pick: int, steps: int) -> None:
        """A worker does what is next: becomes ready, reads a job, ends it, reads the next."""
        worker = self.choose(pick, self.alive())
        assert worker is not None
        process = self.processes[worker]
        for _ in range(steps):
            if process.is_parked:
                return
            if not process.is_ready:
                process.is_ready = True
                process.said.append(READY)
            elif process.running is not None:
                process.said.append(process.running)
                process.running = None
                process.is_tearing_down = self.are_slow_to_tear_down
                if self.are_outgrown and not process.is_tearing_down:
                    process.said.append(TORN_DOWN)
            elif process.is_tearing_down:
                process.is_tearing_down = False
                process.said.append(TORN_DOWN)
            elif process.socket:
                self.begin(process, process.socket.popleft())
            elif process.is_ending:
                process.is_alive = False
                return

    @precondition(lambda self: self.alive())
    @rule(pick=st.integers(0, 2), is_from_outside=st.booleans())
    def die(self, pick: int, is_from_outside: bool) -> None:
        worker = self.choose(pick, self.alive())
        assert worker is not None
        self.processes[worker].is_alive = False
        self.processes[worker].is_killed_from_outside = is_from_outside

    @precondition(lambda self: self.alive())
    @rule(pick=st.integers(0, 5), is_parked=st.booleans(), is_heard=st.booleans())
    def crash(self, pick: int, is_parked: bool, is_heard: bool) -> None:
        """Its death, if it has not been killed before, comes when it has been looked into."""
        worker = self.choose(pick, self.alive())
        assert worker is not None
        process = self.processes[worker]
        process.has_crashed = True
        process.is_parked |= is_parked
        if is_heard and not process.is_known_crashing:
            self.hear_crash(worker)

    @precondition(lambda self: self.alive())
    @rule(are_ready=st.booleans(), is_parked=st.booleans())
    def crash_all(self, are_ready: bool, is_parked: bool) -> None:
        """As when all kernels make the same compiler crash."""
        for worker in self.alive():
            if are_ready:
                self.go_on(self.alive().index(worker), steps=2)
                while worker in self.processes and self.processes[worker].said:
                    self.hear_one(worker)
            self.processes[worker].has_crashed = True
            self.processes[worker].is_parked |= is_parked
        for worker in self.crashed_unheard():
            self.hear_crash(worker)

    # What the supervisor hears

    @precondition(lambda self: self.talking())
    @rule(pick=st.integers(0, 2))
    def hear(self, pick: int) -> None:
        worker = self.choose(pick, self.talking())
        assert worker is not None
        self.hear_one(worker)

    @rule()
    def hear_all(self) -> None:
        while talking := self.talking():
            self.hear_one(talking[0], settle=False)
        self.perform()

    @precondition(lambda self: self.crashed_unheard())
    @rule(pick=st.integers(0, 5))
    def hear_of_a_crash(self, pick: int) -> None:
        worker = self.choose(pick, self.crashed_unheard())
        assert worker is not None
        self.hear_crash(worker)

    @precondition(lambda self: len(self.alive()) < len(self.processes))
    @rule(pick=st.integers(0, 2))
    def hear_of_a_death(self, pick: int) -> None:
        worker = self.choose(pick, sorted(set(self.processes) - set(self.alive())))
        assert worker is not None
        self.bury(worker)

    @rule(pick=st.integers(0, 5))
    def see_a_job_over_its_limit(self, pick: int) -> None:
        """Only of those that have been reported is the time known. It may just have ended."""
        firsts = {worker: self.scheduler.runs_of(worker)[:1] for worker in self.processes}
        running = [
            worker
            for worker, jobs in firsts.items()
            if {(worker, job) for job in jobs} & self.reported
        ]
        worker = self.choose(pick, running)
        if worker is None:
            return
        process, (job,) = self.processes[worker], firsts[worker]
        self.over_limit.add(job)
        is_leaving = process.is_doomed or process.is_known_crashing or process.is_ending
        assert self.scheduler.over_limit(worker, job) == (not is_leaving)
        actions = self.next_actions()
        assert (KillWorker(worker) in actions) == (not is_leaving)
        self.carry_out(actions)
        self.perform()

    @rule(pick=st.integers(0, 5))
    def see_another_job_over_its_limit(self, pick: int) -> None:
        worker = self.choose(pick, sorted(self.processes))
        if worker is not None:
            assert not self.scheduler.over_limit(worker, 0)

    @rule(free=st.sampled_from([-5, 0, 3, 10, 1000]))
    def see_how_much_memory_there_is(self, free: int) -> None:
        self.free = free
        self.scheduler.memory_seen(free, {})
        self.perform()

    @precondition(lambda self: self.generation)
    @rule()
    def lose_the_fork_servers_that_were_replaced(self) -> None:
        unread = self.lose_workers(range(self.generation))
        self.scheduler.fork_server_lost(unread, "fork server", "no worker", was_leaving=True)
        self.quiet_since = None
        self.perform()

    @precondition(lambda self: self.has_fork_server)
    @rule(is_to_die_again=st.booleans())
    def lose_the_fork_server(self, is_to_die_again: bool) -> None:
        unread = self.lose_workers([self.generation])
        self.scheduler.fork_server_lost(unread, "fork server", "no worker")
        self.quiet_since = None
        actions = self.next_actions()
        self.start_failures += 1
        if self.start_failures == MAX_START_FAILURES:
            self.start_failures = 0
            assert not any(isinstance(action, StartWorker) for action in actions)
        self.carry_out(actions)
        self.perform()
        if is_to_die_again:
            for pick in range(len(self.alive())):
                self.go_on(pick, steps=2)
            self.lose_the_fork_server(False)

    @precondition(lambda self: self.processes)
    @rule(
        first=st.sampled_from(["cancel", "reload", "crash", "broken"]),
        pick=st.integers(0, 5),
        is_fork_server=st.booleans(),
    )
    def hear_of_two_things_at_once(self, first: str, pick: int, is_fork_server: bool) -> None:
        """What the first leads to has not been done when a worker or the fork server dies."""
        worker = self.choose(pick, sorted(self.processes))
        assert worker is not None
        process = self.processes[worker]
        if first == "cancel" and (jobs := self.scheduler.runs_of(worker)):
            self.cancel_job(jobs[-1])
        elif first == "reload":
            self.begin_reload()
        elif first == "crash" and process.is_alive and not process.is_known_crashing:
            process.has_crashed = True
            self.note_crash(process)
            self.scheduler.worker_crashing(worker)
        elif first == "broken" and len(self.may_go_ahead) > 8:
            self.is_broken = True
            self.scheduler.broken("broken")
        if is_fork_server and self.has_fork_server:
            self.lose_the_fork_server(False)
        else:
            process.is_alive = False
            self.bury(worker)

    @rule(count=st.integers(1, MAX_START_FAILURES + 1))
    def run_out_of_processes(self, count: int) -> None:
        self.starts_that_fail = count

    @precondition(lambda self: len(self.may_go_ahead) > 8)
    @rule(dice=st.integers(0, 3))
    def be_broken(self, dice: int) -> None:
        if dice == 0:
            self.is_broken = True
            self.scheduler.broken("broken")
            self.perform()

    # Time

    @rule(milliseconds=st.sampled_from([0.1, 1.0, 10.0, 1000.0]))
    def pass_time(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000

    @rule()
    def tick(self) -> None:
        self.perform()
        tick = self.scheduler.wakes_at()
        assert tick is None or tick > self.now
        if self.policy.idle_timeout_s is not None:
            idle = [self.processes[worker] for worker in self.idle()]
            timeout_s = self.policy.idle_timeout_s
            is_overdue = any(process.known_since + timeout_s <= self.now for process in idle)
            staying = [
                each
                for each in self.processes.values()
                if not each.is_replaceable and each.given != self.policy.max_runs_per_worker
            ]
            is_few = len(staying) <= self.policy.min_workers
            some_start = any(not each.is_known_ready for each in self.processes.values())
            assert not is_overdue or is_few or some_start
        for worker, process in self.processes.items():
            if process.is_known_ready and len(self.scheduler.runs_of(worker)) > 1:
                has_run_long = process.known_since + SHORT_RUN_S <= self.now
                assert not (process.socket and has_run_long), "waits behind a long job"

    # What holds at any time

    @invariant()
    def every_unfinished_job_is_known(self) -> None:
        assert self.scheduler.unfinished == len(self.may_go_ahead) - len(self.ends)

    @invariant()
    def jobs_sent_are_where_the_scheduler_thinks(self) -> None:
        for worker, process in self.processes.items():
            jobs = self.scheduler.runs_of(worker)
            assert len(jobs) <= 1 + MAX_AHEAD
            ended = [word for word in process.said if word > 0]
            running = [] if process.running is None else [process.running]
            assert jobs == [*ended, *running, *process.socket]
            assert all(self.scheduler.worker_of(job) == worker for job in jobs)
        assert all(self.scheduler.worker_of(job) is None for job in self.waiting())

    @invariant()
    def a_worker_known_to_crash_has_no_unread_job(self) -> None:
        for process in self.processes.values():
            assert not (process.is_known_crashing and process.socket)

    @invariant()
    def there_are_not_too_many_workers(self) -> None:
        assert len(self.busy()) <= self.max_workers
        assert len(self.processes) <= 2 * self.max_workers

    @invariant()
    def a_pool_that_sleeps_has_no_idle_worker(self) -> None:
        if self.was_told_to_quiesce:
            assert not self.idle() or self.waiting()
        if self.scheduler.is_asleep:
            assert not self.processes

    @invariant()
    def nobody_is_idle_while_jobs_wait(self) -> None:
        if self.scheduler.is_short_of_memory:
            assert self.jobs_at_workers(), "one always runs"
            assert self.waiting()
        elif self.waiting():
            assert not self.is_broken
            assert not self.has_room() or not self.may_run_more()
            assert not self.idle() or not self.may_run_more()

    @invariant()
    def no_job_waits_for_a_starting_worker_while_another_is_idle(self) -> None:
        if self.idle():
            starting = [p for p in self.processes.values() if not p.is_known_ready]
            assert not any(process.socket for process in starting if not process.is_doomed)

    @invariant()
    def a_cancelled_job_that_runs_is_killed(self) -> None:
        for process in self.processes.values():
            if process.running in self.cancelled:
                assert process.is_doomed

    @invariant()
    def one_worker_runs_the_jobs_of_a_client_in_their_order(self) -> None:
        if self.max_workers == 1:
            for priority, client in self.lines:
                wanted = (priority, [client])
                reads = [
                    job
                    for job in self.first_reads
                    if (self.priority[job], self.clients[job]) == wanted and job not in self.joined
                ]
                assert reads == sorted(reads)

    # The end: let everything run its course

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.starts_that_fail = 0
        self.see_how_much_memory_there_is(1000)
        for _ in range(20 * (len(self.may_go_ahead) + 1)):
            if not self.scheduler.unfinished:
                break
            self.let_time_pass(SHORT_RUN_S)
        self.every_unfinished_job_is_known()
        assert self.scheduler.unfinished == 0
        if self.policy.idle_timeout_s is None:
            assert self.scheduler.wakes_at() is None
        self.let_all_end()
        assert set(self.ends) == set(self.may_go_ahead)
        for job in self.cancelled:
            assert self.ends[job] in ("cancelled", "result")
        for job, how in self.ends.items():
            if how == "crash":
                assert self.runs[job] >= 1
            if how == "start":
                # Only a job that was lost with a fork server has run before it waits again.
                assert self.runs[job] <= self.allowed_runs[job] - 1

    def let_time_pass(self, seconds: float) -> None:
        for worker in list(self.processes):
            process = self.processes[worker]
            process.is_alive &= not (process.is_doomed or process.is_known_crashing)
            if worker in self.crashed_unheard():
                self.hear_crash(worker)
            if process.said:
                self.hear_one(worker)
            elif not process.is_alive:
                self.bury(worker)
        self.now += seconds
        self.tick()
        for index in range(len(self.alive())):
            self.go_on(index, 1)

    def let_all_end(self) -> None:
        """With an idle timer by itself, else when it is told to."""
        has_timer = self.policy.idle_timeout_s is not None and not self.policy.min_workers
        if not has_timer or self.was_told_to_quiesce:
            self.quiesce(keeps_fork_server=False)
        for _ in range(10 * self.max_workers + MAX_IDLE_DEATHS):
            if not self.has_fork_server:
                break
            self.let_time_pass((self.policy.idle_timeout_s or 0.0) + SHORT_RUN_S)
        assert not self.processes
        assert not self.has_fork_server


Pool.TestCase.settings = settings(max_examples=ROUNDS, stateful_step_count=50)
TestPool = Pool.TestCase
