"""Ends the calls that have failed: in the end each future has an error that says why."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

from compilepool.client.session import outcomes
from compilepool.client.session.calls import Call, UnfinishedCalls
from compilepool.client.session.poison import PoisonedKeys
from compilepool.client.session.sending import SupervisorLink
from compilepool.client.session.threads import Background
from compilepool.errors import CompilePoolError, SupervisorDied
from compilepool.light_typing import TYPE_CHECKING, TypeAlias
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.wire.failure import KILLED_FROM_OUTSIDE, Failure, KeyCrash
from compilepool.wire.messages import Kind, Message
from compilepool.wire.payloads import Payload

if TYPE_CHECKING:
    from compilepool.client.connection.setup import PoolSetup
    from compilepool.client.session.crash_keeper import CrashKeeper

_log = QuietLogger(__name__)

FailedCall: TypeAlias = tuple[Call, CompilePoolError]
"""A call that is not in the table any more, and the error that its future gets."""


def end_all(failed: Sequence[FailedCall]) -> None:
    """End calls that are not in the table any more, all of them, whatever their callbacks do."""
    for call, error in failed:
        with contextlib.suppress(Exception):
            call.end_with_error(error)


class FailedCalls:
    """Ends calls whose workers could not run them to their end.

    Args:
        calls: the unfinished calls.
        link: the way to the supervisor.
        background: writes crash folders.

    Attributes:
        poisoned: the keys whose jobs crash again and again.
    """

    def __init__(
        self, calls: UnfinishedCalls, link: SupervisorLink, background: Background
    ) -> None:
        self._calls = calls
        self._link = link
        self._background = background
        self._keeper: CrashKeeper | None = None
        self._are_killed = False
        self.poisoned = PoisonedKeys()

    def make_folders(self, setup: PoolSetup, startup: Payload | None) -> None:
        """From now on, make a crash folder of each job that crashes.

        Args:
            setup: what the pool's processes are made like.
            startup: what every worker starts with, which may be closed afterwards.

        Raises:
            OSError: too many open files.
        """
        if self._keeper is None:
            from compilepool.client.session.crash_keeper import CrashKeeper

            self._keeper = CrashKeeper(setup, startup, self._background, self.end)

    def gets_folder(self, failure: Failure) -> bool:
        """Whether a call that has failed like this is to be given to `keep`."""
        return self._keeper is not None and failure.is_crash and not failure.kept_by

    def keep(self, call: Call, failure: Failure) -> None:
        """Make a crash folder, in the background, and then end the call."""
        assert self._keeper is not None
        self._keeper.keep(call, failure)

    def died_idle(self, failure: Failure) -> None:
        """A worker has died after its last job had ended. Tell of it, in the background."""
        self._background.run(functools.partial(self._tell_of, failure))

    def _tell_of(self, failure: Failure) -> None:
        job, keep = failure.last_job, None
        is_kept = not failure.kept_by and failure.exitcode not in KILLED_FROM_OUTSIDE
        if self._keeper is not None and is_kept:
            keep = functools.partial(self._keeper.keep_ended, job)
        error = outcomes.of_failure(failure, job, keep=keep)
        from compilepool.client.reports.errors import headline_of

        folder = getattr(error, "folder", "")
        seen = f"; its report is in {folder}" if folder else ""
        _log.warning("%s%s", headline_of(error), seen)

    def key_crashed(self, crash: KeyCrash) -> None:
        """A job of another process has crashed. Count that, in the background."""
        self._background.run(functools.partial(self._count_crash, crash))

    def _count_crash(self, crash: KeyCrash) -> None:
        error = outcomes.of_failure(crash.failure, crash.job)
        end_all(self._take_poisoned(crash.key, error))

    def end(
        self, call: Call, failure: Failure, error: CompilePoolError, *, counts: bool = True
    ) -> None:
        """End a call that is not in the table any more. Any thread.

        If that poisons its key, the waiting calls with the same key end as well.

        Args:
            call: the call.
            failure: why it has failed.
            error: the error that its future gets.
            counts: whether this is the first call of this process that ends by this failure.
        """
        poisoned: list[FailedCall] = []
        try:
            if counts and failure.is_crash and not failure.is_innocent:
                poisoned = self._take_poisoned(call.terms.key, error)
        finally:
            # They end first: a callback of the call's own future may wait for them.
            end_all([*poisoned, (call, error)])

    def _take_poisoned(self, key: str, error: CompilePoolError) -> list[FailedCall]:
        """Take the waiting calls of a key, with their errors, if this crash has poisoned it."""
        if not self.poisoned.has_crashed(key, error):
            return []
        with self._calls.lock:
            waiting = self._calls.pop_waiting(key)
            with contextlib.suppress(Exception):  # then they run, and nobody hears of it
                for id, _ in waiting:
                    self._link.send(Message(Kind.CANCEL, id))
        # None: the key was forgotten just now.
        return [(call, self.poisoned.error(key, call.name) or error) for _, call in waiting]

    # After a supervisor's end, under the lock. The calls leave the table one by one. A list that is
    # extended by them has all that have left, even if this fails at the next one.

    def cancel_waiting(self) -> None:
        """The workers are about to be killed: cancel the calls that are not known to run.

        From now on, `take_terminated` takes the errors of those that run from `errors.killed`.
        """
        self._are_killed = True
        for _, call in self._calls.pop_waiting():
            call.end_cancelled()

    def take_terminated(self) -> Iterator[FailedCall]:
        """Take all calls, with their errors: their pool was terminated."""
        for id, call in self._calls.items():
            from compilepool.client.reports import errors

            # Made before the call is taken: nobody would end a call that only this has.
            reason = errors.killed if self._are_killed else errors.ended_with_pool
            error = reason(call.name)
            if self._calls.pop(id) is not None:
                yield call, error

    def take_lost(
        self, exitcode: int | None, trouble: str, *, resubmit: bool
    ) -> Iterator[FailedCall]:
        """Take the calls that no other supervisor gets, with their errors.

        Args:
            exitcode: the dead supervisor's.
            trouble: why this process has killed it; "" if it has not.
            resubmit: whether a call is sent to a second supervisor.
        """
        for id, call in self._calls.items():
            if call.sends > resubmit:
                from compilepool.client.reports import errors

                error = errors.supervisor_died(
                    call.name, exitcode, trouble, was_resubmitted=resubmit
                )
                if self._calls.pop(id) is not None:
                    yield call, error

    def take_closed(self) -> Iterator[FailedCall]:
        """Take the calls whose payload cannot be sent: the program has closed its descriptor."""
        for id, call in self._calls.items():
            if call.payload.is_lost:
                why = "the program has closed the descriptor that had its arguments"
                error = SupervisorDied(f"job {call.name!r} is lost: {why}")
                if self._calls.pop(id) is not None:
                    yield call, error

    def take_all(self, why: str) -> Iterator[FailedCall]:
        """Take all calls, with their errors: no supervisor can be had for them.

        Args:
            why: why they are lost, for the errors.
        """
        for id, call in self._calls.items():
            error = SupervisorDied(f"job {call.name!r} is lost: {why}")
            if self._calls.pop(id) is not None:  # a signal handler may have taken it meanwhile
                yield call, error

    def close(self) -> None:
        """No supervisor will tell of another failure. Folders that are being made are finished."""
        if self._keeper is not None:
            self._keeper.close()

    def abandon(self) -> None:
        """After a fork, in the child: let go of everything."""
        self.poisoned.abandon()
        if self._keeper is not None:
            self._keeper.abandon()
