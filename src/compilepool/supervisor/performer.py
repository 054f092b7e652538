"""Carries out the actions that the rules return."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from compilepool.light_typing import Any, TypeAlias
from compilepool.supervisor.clients import Clients
from compilepool.supervisor.crew import events
from compilepool.supervisor.crew.crew import Crew
from compilepool.supervisor.jobs import Jobs
from compilepool.supervisor.rules import actions
from compilepool.supervisor.rules.actions import WorkerId
from compilepool.supervisor.rules.scheduler import Scheduler
from compilepool.supervisor.runs import RunTable
from compilepool.supervisor.watch.deaths import not_started, without_worker
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Kind
from compilepool.wire.usage import NO_USAGE, result_message

FailureReason: TypeAlias = Failure | events.InitializerFailed
"""Why a run fails, or why no worker can be started."""


class Performer:
    """Carries out actions, through the crew and by messages to clients.

    Args:
        scheduler: the rules.
        crew: the processes.
        runs: the unfinished runs.
        jobs: the jobs that wait for them.
        clients: all clients.
    """

    def __init__(
        self,
        scheduler: Scheduler[FailureReason],
        crew: Crew,
        runs: RunTable,
        jobs: Jobs,
        clients: Clients,
    ) -> None:
        self._scheduler = scheduler
        self._crew = crew
        self._runs = runs
        self._jobs = jobs
        self._clients = clients
        self._has_answered = False
        self._refused: dict[WorkerId, Failure] = {}
        """The workers that could not be started, before the rules are told."""
        self._performers: dict[type, Callable[[Any], None]] = {
            actions.SendRun: self._send_run,
            actions.TakeBack: self._take_back,
            actions.ReportStarted: self._report_started,
            actions.ForgetRun: self._forget_run,
            actions.ReportNoWorkers: self._report_no_workers,
            actions.FailRun: self._fail_run,
            actions.StartWorker: self._start_worker,
            actions.EndWorker: self._end_worker,
            actions.KillWorker: self._kill_worker,
            actions.EndForkServer: self._end_fork_server,
            actions.ReplaceForkServer: self._replace_fork_server,
        }

    def carry_out(self, due: Sequence[actions.Action[FailureReason]]) -> bool:
        """Carry out actions, in order. Failed starts are then reported to the rules.

        Returns:
            Whether the rules were told something, so that they may want other actions.
        """
        self._has_answered = False
        for action in due:
            self._performers[type(action)](action)
        while self._refused:
            self._has_answered = True
            self._scheduler.worker_refused(*self._refused.popitem())
        return self._has_answered

    def _start_worker(self, action: actions.StartWorker) -> None:
        try:
            self._crew.start_worker(action.worker)
        except OSError as error:
            self._refused[action.worker] = not_started(error)

    def _send_run(self, action: actions.SendRun) -> None:
        if action.worker not in self._refused:
            self._crew.send_run(action.worker, action.run, self._runs[action.run])

    def _take_back(self, action: actions.TakeBack) -> None:
        self._has_answered = True
        worker = action.worker
        is_tearing_down = self._crew.workers.is_tearing_down(worker)
        unread, now = self._crew.take_back(worker), time.monotonic()
        self._scheduler.taken_back(worker, unread, now, is_tearing_down=is_tearing_down)

    def _end_worker(self, action: actions.EndWorker) -> None:
        self._crew.end_worker(action.worker)

    def _kill_worker(self, action: actions.KillWorker) -> None:
        self._crew.kill_worker(action.worker)

    def _end_fork_server(self, _action: actions.EndForkServer) -> None:
        self._crew.fork_servers.let_go()

    def _replace_fork_server(self, _action: actions.ReplaceForkServer) -> None:
        self._crew.fork_servers.replace()

    def _report_started(self, action: actions.ReportStarted) -> None:
        worker = self._scheduler.worker_of(action.run)
        assert worker is not None
        if not (action.is_read or self._crew.workers.has_begun(worker, action.run)):
            self._has_answered = True
            self._scheduler.not_begun(worker)
            return
        self._crew.note_long_run(worker, action.run, self._jobs.begun(action.run))

    def _forget_run(self, action: actions.ForgetRun) -> None:
        self._jobs.forget(action.run)

    def _report_no_workers(self, action: actions.ReportNoWorkers[FailureReason]) -> None:
        reason = action.reason
        for client in self._clients:
            if isinstance(reason, Failure):
                payload = without_worker(reason).payload()
                client.send(payload.message(Kind.NO_WORKERS, client.warm_up_id))
            else:
                outcome, payload = reason
                id, flag = client.warm_up_id, int(outcome)
                client.send(payload.message(Kind.INITIALIZER_FAILED, id, flag))

    def _fail_run(self, action: actions.FailRun[FailureReason]) -> None:
        reason = action.reason
        if isinstance(reason, Failure):
            self._jobs.failed(action.run, reason)
        else:
            message = result_message(0, reason.outcome, reason.payload, NO_USAGE)
            self._jobs.could_not_begin(action.run, message)
