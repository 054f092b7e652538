"""Processes that do what a scheduler says, and all that is known of them, heard or not."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Sequence

from hypothesis.stateful import RuleBasedStateMachine

from compilepool.supervisor.rules.actions import (
    Action,
    EndForkServer,
    EndWorker,
    FailRun,
    ForgetRun,
    KillWorker,
    ReplaceForkServer,
    ReportNoWorkers,
    ReportStarted,
    SendRun,
    StartWorker,
    TakeBack,
)
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.rules.staffing import (
    MAX_START_FAILURES,
    MAX_TEARDOWN_S,
    StaffingPolicy,
)
from tests.logic.schedulers import NOW

READY = -1
"""What a worker says when it has started."""

TORN_DOWN = -2
"""What it says when it has torn down what a job has left, if that took long or it is outgrown. All
else that it says are the jobs that it ended."""


class Process:
    """What a worker really is, of which the scheduler only hears."""

    def __init__(self, generation: int) -> None:
        self.is_alive = True
        self.is_doomed = False  # a SIGKILL is on its way
        self.is_ready = False
        self.has_crashed = False
        self.is_parked = False  # with the thread that runs jobs; else it goes on meanwhile
        self.socket: deque[int] = deque()
        self.running: int | None = None
        self.is_tearing_down = False  # for long; it reads nothing meanwhile
        self.is_killed_from_outside = False
        self.is_ending = False  # it exits in order when it is ready
        self.generation = generation  # of the fork server that it comes from
        self.given = 0  # jobs that it has had, those taken back not counted
        self.said: deque[int] = deque()
        """What it has sent and the supervisor has not read yet."""
        # What the supervisor has heard of it, or decided:
        self.is_known_ready = False
        self.known_since = 0.0
        self.is_known_crashing = False
        self.is_known_outgrown = False
        self.is_known_to_tear_down = False
        self.is_replaceable = False


class PoolModel(RuleBasedStateMachine):
    """A scheduler, and processes that do what it says.

    Its assertions hold for each action of the scheduler's.
    """

    def reset(self, max_workers: int, policy: StaffingPolicy) -> None:
        """Begin, with no process but the fork server."""
        self.expected: dict[int, int] = {}
        self.free: float = math.inf
        self.priority: dict[int, int] = {}
        self.clients: dict[int, list[int]] = {}
        self.lines: dict[tuple[int, int], list[int]] = {}
        """The jobs by priority and client, in the order in which they start if no turn is another
        client's."""
        self.joined: set[int] = set()
        self.overtaken: Counter[tuple[int, int, int]] = Counter()
        """By priority, client and other client: the jobs of the other that were sent while one
        of the client's waited for its turn."""
        self.retries: dict[int, int] = {}
        self.reported: set[tuple[int | None, int]] = set()
        self.over_limit: set[int] = set()
        self.policy = policy
        self.scheduler: Scheduler[str] = Scheduler(
            max_workers, self.expected.__getitem__, self.policy
        )
        self.max_workers = max_workers
        self.generation = 0
        self.has_fork_server = True
        self.was_told_to_quiesce = False
        self.quiet_since: float | None = None
        self.are_outgrown = False
        self.are_slow_to_tear_down = False
        self.now = NOW
        self.processes: dict[int, Process] = {}
        self.stillborn: set[int] = set()
        self.starts_that_fail = 0
        self.may_go_ahead: dict[int, bool] = {}
        self.ends: dict[int, str] = {}
        self.cancelled: set[int] = set()
        self.ever_sent: set[int] = set()
        self.runs: Counter[int] = Counter()
        self.allowed_runs: dict[int, int] = {}
        self.first_reads: list[int] = []
        self.is_broken = False
        self.start_failures = 0

    def perform(self) -> None:
        """As the supervisor's pool does after events."""
        while self.carry_out(self.next_actions()):
            pass
        assert self.next_actions() == [], "not all that there was to do"

    def next_actions(self) -> list[Action[str]]:
        if self.scheduler.unfinished:
            self.quiet_since = None
        elif self.quiet_since is None:
            self.quiet_since = self.now
        return self.scheduler.next_actions(self.now)

    def carry_out(self, actions: Sequence[Action[str]]) -> bool:
        """Returns whether the scheduler was told something meanwhile."""
        stillborn: list[int] = []
        has_answered = False
        for action in actions:
            if isinstance(action, StartWorker):
                assert not self.is_broken
                assert action.worker not in self.processes
                assert len(self.processes) < 2 * self.max_workers
                self.has_fork_server = True
                self.processes[action.worker] = Process(self.generation)
                if self.starts_that_fail:
                    self.starts_that_fail -= 1
                    self.stillborn.add(action.worker)
                    stillborn.append(action.worker)
            elif isinstance(action, SendRun):
                self.send(action.worker, action.run)
            elif isinstance(action, TakeBack):
                assert action.worker not in self.stillborn
                self.take_back(action.worker)
            elif isinstance(action, KillWorker):
                process = self.processes[action.worker]
                assert not process.is_doomed
                if process.is_alive and process.running is not None:
                    wanted = self.cancelled | self.over_limit
                    assert process.running in wanted, "an innocent job is killed"
                process.is_doomed = process.is_replaceable = True
            elif isinstance(
                action, EndWorker | EndForkServer | ReplaceForkServer | ReportNoWorkers
            ):
                self.let_go(action)
            elif isinstance(action, ReportStarted):
                assert action.run not in self.ends
                worker = self.scheduler.worker_of(action.run)
                assert worker is not None
                is_unread = action.run in self.processes[worker].socket
                assert not (action.is_read and is_unread)
                if is_unread:
                    self.scheduler.not_begun(worker)
                    has_answered = True
                else:
                    self.note_begun(worker, action.run)
            elif isinstance(action, ForgetRun):
                assert action.run in self.cancelled
                self.end(action.run, "cancelled")
            else:
                assert action.run not in self.cancelled
                self.end(action.run, action.reason)
        self.refuse(stillborn)
        return (
            bool(stillborn)
            or has_answered
            or any(isinstance(action, TakeBack) for action in actions)
        )

    def note_begun(self, worker: int, job: int) -> None:
        self.reported.add((worker, job))

    def take_back(self, worker: int) -> None:
        process = self.processes[worker]
        unread = list(process.socket)
        process.socket.clear()
        process.given -= len(unread)
        is_tearing_down = process.is_tearing_down
        self.scheduler.taken_back(worker, unread, self.now, is_tearing_down=is_tearing_down)
        self.note_idle_or_begun(worker)
        is_staying = not (process.is_known_crashing or process.is_replaceable)
        if not self.scheduler.runs_of(worker) and is_staying:
            process.is_known_to_tear_down |= is_tearing_down

    def refuse(self, stillborn: Sequence[int]) -> None:
        """These could not be started."""
        for worker in stillborn:
            self.stillborn.discard(worker)
            del self.processes[worker]
            unread = self.scheduler.runs_of(worker)
            self.scheduler.worker_lost(worker, unread, "start", self.now)
            actions = self.next_actions()
            self.check_start_failure(actions)
            self.carry_out(actions)

    def let_go(
        self, action: EndWorker | EndForkServer | ReplaceForkServer | ReportNoWorkers[str]
    ) -> None:
        if isinstance(action, EndWorker):
            if action.worker in self.stillborn:
                return
            process = self.processes[action.worker]
            assert not process.is_ending
            assert not process.is_doomed
            assert not self.scheduler.runs_of(action.worker)
            if not process.is_replaceable and not self.was_told_to_quiesce:
                had_all = process.given == self.policy.max_runs_per_worker
                is_done = had_all or process.is_known_outgrown or self.tears_down_too_long(process)
                assert is_done or self.is_idle_too_long(process), "dismissed too early"
            process.is_ending = process.is_replaceable = True
        elif isinstance(action, EndForkServer):
            assert self.has_fork_server
            assert not self.processes
            assert not self.scheduler.unfinished
            assert not self.policy.min_workers or self.was_told_to_quiesce
            self.has_fork_server = False
        elif isinstance(action, ReplaceForkServer):
            self.generation += 1
            self.has_fork_server = True

    def is_idle_too_long(self, process: Process) -> bool:
        """Whether it is, or the pool as a whole."""
        timeout_s = self.policy.idle_timeout_s
        since = [process.known_since] if process.is_known_ready else []
        since += [] if self.quiet_since is None else [self.quiet_since]
        # Added as the rules add them: a difference is rounded otherwise.
        return timeout_s is not None and any(each + timeout_s <= self.now for each in since)

    def tears_down_too_long(self, process: Process) -> bool:
        return process.is_known_to_tear_down and process.known_since + MAX_TEARDOWN_S <= self.now

    def send(self, worker: int, job: int) -> None:
        assert not self.is_broken
        assert job not in self.ends
        assert job not in self.cancelled
        assert not any(
            job in process.socket or job == process.running for process in self.processes.values()
        )
        if job not in self.ever_sent:
            self.check_turn(job)
            self.ever_sent.add(job)
        else:
            self.overtaken.clear()  # its client has had the turn of this job again
        sent = self.jobs_sent()
        if sent and self.expected[job]:
            assert sum(self.expected[each] for each in {job, *sent}) <= self.free
        process = self.processes[worker]
        assert not process.is_known_crashing
        assert not process.is_ending
        assert not process.is_known_to_tear_down
        assert process.generation == self.generation
        if worker not in self.stillborn:
            process.socket.append(job)
        process.given += 1
        assert process.given <= (self.policy.max_runs_per_worker or math.inf)
        if self.scheduler.runs_of(worker)[0] == job:
            process.known_since = self.now
        else:
            assert process.is_known_ready
            assert self.may_go_ahead[job]

    def check_turn(self, job: int) -> None:
        waiting = {job, *self.waiting()} - self.ever_sent
        priority = self.priority[job]
        assert priority == max(self.priority[each] for each in waiting)
        firsts = {}
        for (rank, client), line in self.lines.items():
            if rank == priority and (own := [each for each in line if each in waiting]):
                firsts[client] = own[0]
        served = [client for client, first in firsts.items() if first == job]
        assert served, "not first come, first served"
        assert set(served) <= set(self.clients[job])
        if len(served) == 1:
            for other in set(firsts) - set(served):
                self.overtaken[priority, other, served[0]] += 1
                assert self.overtaken[priority, other, served[0]] <= 1, "not this client's turn"
        for key in [key for key in self.overtaken if key[0] == priority and key[1] in served]:
            del self.overtaken[key]

    def note_idle_or_begun(self, worker: int) -> None:
        if not self.scheduler.runs_of(worker):
            self.processes[worker].known_since = self.now

    def end(self, job: int, how: str) -> None:
        assert job in self.may_go_ahead
        assert job not in self.ends
        self.ends[job] = how

    def hear_one(self, worker: int, *, settle: bool = True) -> None:
        process = self.processes[worker]
        word = process.said.popleft()
        if word != TORN_DOWN or process.is_known_to_tear_down:  # else it counts as idle already
            process.known_since = self.now
        if word == READY:
            self.start_failures = 0
            process.is_known_ready = True
            if self.quiet_since is not None:
                self.quiet_since = self.now
            process.is_replaceable |= process.is_known_crashing
            self.scheduler.worker_ready(worker, self.now)
        elif word == TORN_DOWN:
            process.is_known_outgrown |= self.are_outgrown
            process.is_known_to_tear_down = False
            self.scheduler.torn_down(worker, self.now, is_outgrown=self.are_outgrown)
        else:
            self.scheduler.run_finished(worker, word, self.now)
            self.end(word, "result")
        if settle:
            self.perform()

    def note_crash(self, process: Process) -> None:
        """If it had not started, it has a place until it is dead: its start may have failed."""
        process.is_known_crashing = True
        if process.is_known_ready:
            process.is_replaceable = True
        elif not (process.is_doomed or process.is_ending):
            process.is_replaceable = False

    def hear_crash(self, worker: int) -> None:
        process = self.processes[worker]
        self.note_crash(process)
        unread = set(process.socket)
        self.scheduler.worker_crashing(worker)
        self.perform()
        for job in unread - set(self.ends):
            assert self.scheduler.worker_of(job) != worker

    def bury(self, worker: int) -> None:
        process = self.processes[worker]
        while process.said:
            self.hear_one(worker)
        unread = list(process.socket)
        jobs = self.scheduler.runs_of(worker)
        del self.processes[worker]
        cause = "crash" if process.is_known_ready else "start"
        is_from_outside = process.is_killed_from_outside and not process.is_doomed
        self.scheduler.worker_lost(worker, unread, cause, self.now, is_innocent=is_from_outside)
        actions = self.next_actions()
        for job in set(jobs) - set(unread) - self.cancelled:
            if is_from_outside and self.retries[job]:
                self.retries[job] -= 1
                assert FailRun(job, cause) not in actions
            else:
                assert FailRun(job, cause) in actions
        if not process.is_known_ready and not process.is_doomed and not process.is_ending:
            self.check_start_failure(actions)
        self.carry_out(actions)
        self.perform()

    def check_start_failure(self, actions: Sequence[Action[str]]) -> None:
        self.start_failures += 1
        if self.start_failures == MAX_START_FAILURES:
            self.start_failures = 0
            assert not any(isinstance(action, StartWorker) for action in actions)
        elif not self.is_broken:
            assert not any(isinstance(action, FailRun) for action in actions)

    def jobs_at_workers(self) -> set[int]:
        """As the scheduler sees it."""
        return {job for worker in self.processes for job in self.scheduler.runs_of(worker)}

    def jobs_sent(self) -> set[int]:
        """As it is, but for those whose end has been heard."""
        sent: set[int] = set()
        for process in self.processes.values():
            sent.update(process.socket)
            sent.update(word for word in process.said if word > 0)
            if process.running is not None:
                sent.add(process.running)
        return sent

    def waiting(self) -> set[int]:
        return set(self.may_go_ahead) - set(self.ends) - self.jobs_at_workers()

    def has_room(self) -> bool:
        """Whether there may be another worker."""
        held = [process for process in self.processes.values() if not process.is_replaceable]
        return len(held) < self.max_workers and len(self.processes) < 2 * self.max_workers

    def busy(self) -> list[int]:
        """The workers that have jobs, and are not about to die."""
        return [
            worker
            for worker, process in self.processes.items()
            if self.scheduler.runs_of(worker)
            and not (process.is_doomed or process.is_known_crashing)
        ]

    def may_run_more(self) -> bool:
        """Whether another worker may have a job."""
        return len(self.busy()) < self.max_workers

    def alive(self) -> list[int]:
        return [worker for worker, process in self.processes.items() if process.is_alive]

    def talking(self) -> list[int]:
        return [worker for worker, process in self.processes.items() if process.said]

    def crashed_unheard(self) -> list[int]:
        return [
            worker
            for worker, process in self.processes.items()
            if process.has_crashed and not process.is_known_crashing
        ]

    def idle(self) -> list[int]:
        return [
            worker
            for worker, process in self.processes.items()
            if process.is_known_ready
            and not process.is_doomed
            and not process.is_known_crashing
            and not process.is_ending
            and not process.is_known_to_tear_down
            and not self.scheduler.runs_of(worker)
        ]

    def lose_workers(self, generations: Collection[int]) -> dict[int, list[int]]:
        """Returns what they had not read."""
        lost = {
            worker: process
            for worker, process in self.processes.items()
            if process.generation in generations
        }
        for process in lost.values():
            process.is_alive = False
        for worker, process in lost.items():
            while process.said:
                self.hear_one(worker)
        for worker in lost:
            del self.processes[worker]
        return {worker: list(process.socket) for worker, process in lost.items()}

    def begin(self, process: Process, job: int) -> None:
        process.running = job
        assert job not in self.ends
        assert job not in self.cancelled
        self.runs[job] += 1
        assert self.runs[job] <= self.allowed_runs[job]
        if self.runs[job] == 1:
            self.first_reads.append(job)
