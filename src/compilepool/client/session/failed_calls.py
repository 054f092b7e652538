"""Ends the calls that have failed: in the end each future has an error that says why."""

from __future__ import annotations

import contextlib
import functools
import logging

from compilepool.client.session import outcomes
from compilepool.client.session.calls import Call, UnfinishedCalls
from compilepool.client.session.poison import PoisonedKeys
from compilepool.client.session.sending import SupervisorLink
from compilepool.client.session.threads import Background
from compilepool.errors import CompilePoolError, SupervisorDied
from compilepool.light_typing import TYPE_CHECKING, TypeAlias
from compilepool.wire.failure import KILLED_FROM_OUTSIDE, Cause, Failure
from compilepool.wire.messages import Kind, Message
from compilepool.wire.payloads import Payload

if TYPE_CHECKING:
    from compilepool.client.session.crash_keeper import CrashKeeper
    from compilepool.client.session.setup import PoolSetup

_log = logging.getLogger(__name__)

FailedCall: TypeAlias = tuple[Call, CompilePoolError]
"""A call that is not in the table any more, and the error that its future gets."""


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
        return self._keeper is not None and failure.cause is Cause.CRASH

    def keep(self, call: Call, failure: Failure) -> None:
        """Make a crash folder, in the background, and then end the call."""
        assert self._keeper is not None
        self._keeper.keep(call, failure)

    def died_idle(self, failure: Failure) -> None:
        """A worker has died after its last job had ended. Tell of it, in the background."""
        self._background.run(functools.partial(self._tell_of, failure))

    def _tell_of(self, failure: Failure) -> None:
        job, keep = failure.last_job, None
        if self._keeper is not None and failure.exitcode not in KILLED_FROM_OUTSIDE:
            keep = functools.partial(self._keeper.keep_ended, job)
        error = outcomes.of_failure(failure, job, keep=keep)
        from compilepool.client.reports.errors import headline_of

        folder = getattr(error, "folder", "")
        seen = f"; its report is in {folder}" if folder else ""
        _log.warning("%s%s", headline_of(error), seen)

    def end(self, call: Call, failure: Failure, error: CompilePoolError) -> None:
        """End a call that is not in the table any more. Any thread.

        If that poisons its key, the waiting calls with the same key end as well.
        """
        waiting: list[tuple[int, Call]] = []
        is_own_doing = failure.cause is Cause.CRASH and not failure.is_innocent
        if is_own_doing and self.poisoned.has_crashed(call.terms.key, error):
            with self._calls.lock:
                waiting = self._calls.pop_waiting(call.terms.key)
                with contextlib.suppress(OSError):  # then they run, and nobody hears of it
                    for id, _ in waiting:
                        self._link.send(Message(Kind.CANCEL, id))
        # They end first: a callback of the call's own future may wait for them.
        for _, other in waiting:
            reason = self.poisoned.error(other.terms.key, other.name)
            other.end_with_error(reason or error)  # None: the key was forgotten just now
        call.end_with_error(error)

    # After a supervisor's end, under the lock. The calls leave the table now, and end later.

    def take_terminated(self) -> list[FailedCall]:
        """Take all calls, with their errors: their pool was terminated."""
        failed: list[FailedCall] = []
        for id, call in self._calls.items():
            from compilepool.client.reports import errors

            # Made before the call is taken: nobody would end a call that only this has.
            failed.append((call, errors.ended_with_pool(call.name)))
            self._calls.pop(id)
        return failed

    def take_lost(self, exitcode: int | None, *, resubmit: bool) -> list[FailedCall]:
        """Take the calls that no other supervisor gets, with their errors.

        Args:
            exitcode: the dead supervisor's.
            resubmit: whether a call is sent to a second supervisor.
        """
        failed: list[FailedCall] = []
        for id, call in self._calls.items():
            if call.sends > resubmit:
                from compilepool.client.reports import errors

                error = errors.supervisor_died(call.name, exitcode, was_resubmitted=resubmit)
                failed.append((call, error))
                self._calls.pop(id)
        return failed

    def take_all(self, why: str) -> list[FailedCall]:
        """Take all calls, with their errors: no supervisor can be had for them.

        Args:
            why: why they are lost, for the errors.
        """
        failed: list[FailedCall] = []
        for id, call in self._calls.items():
            failed.append((call, SupervisorDied(f"job {call.name!r} is lost: {why}")))
            self._calls.pop(id)
        return failed

    def close(self) -> None:
        """No supervisor will tell of another failure. Folders that are being made are finished."""
        if self._keeper is not None:
            self._keeper.close()

    def abandon(self) -> None:
        """After a fork, in the child: let go of everything."""
        self.poisoned.abandon()
        if self._keeper is not None:
            self._keeper.abandon()
