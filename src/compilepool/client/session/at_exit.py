"""Ends all sessions when this process ends, and abandons them in a process forked from it."""

from __future__ import annotations

import atexit
import os
import threading
import weakref

from compilepool.light_typing import Protocol


class EndsWithProcess(Protocol):
    """What this module calls of a session."""

    def terminate(self, *, wait: bool = True) -> None:
        """End all jobs and processes."""

    def abandon_after_fork(self) -> None:
        """Let go of everything."""


_sessions: weakref.WeakSet[EndsWithProcess] = weakref.WeakSet()


def end_with_process(session: EndsWithProcess) -> None:
    """Terminate a session when this process exits; abandon it in forked children."""
    _sessions.add(session)


def _terminate_all() -> None:
    for session in list(_sessions):
        session.terminate(wait=False)
    for session in list(_sessions):
        session.terminate()


def _abandon_all() -> None:
    for session in list(_sessions):
        session.abandon_after_fork()


# Before the program's threads are joined, because they may wait for jobs; and once more at the very
# end, because they may have made more pools.
threading._register_atexit(_terminate_all)  # type: ignore[attr-defined] # as concurrent.futures
atexit.register(_terminate_all)
os.register_at_fork(after_in_child=_abandon_all)
