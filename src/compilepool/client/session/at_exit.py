"""Ends all sessions when this process ends, and abandons them in a process forked from it.

The process ends when its last thread ends that is no daemon, and not when its main thread does:
until then, the others go on with their pools. `atexit` functions run after that.
"""

from __future__ import annotations

import atexit
import os
import weakref

from compilepool.light_typing import Protocol


class EndsWithProcess(Protocol):
    """What this module calls of a session."""

    def terminate(self, *, wait: bool = True) -> None:
        """End all jobs and processes."""

    def abandon_after_fork(self) -> None:
        """Let go of everything."""


_sessions: dict[int, weakref.ref[EndsWithProcess]] = {}
"""All sessions, by their ids. A `WeakSet` could not be read while other threads add to it."""


def end_with_process(session: EndsWithProcess) -> None:
    """Terminate a session when this process exits; abandon it in forked children."""
    key = id(session)
    _sessions[key] = weakref.ref(session, lambda _: _sessions.pop(key, None))


def _all() -> list[EndsWithProcess]:
    references = list(_sessions.values())  # at once
    return [session for each in references if (session := each()) is not None]


def _terminate_all() -> None:
    for session in _all():
        session.terminate(wait=False)
    for session in _all():
        session.terminate()


def _abandon_all() -> None:
    for session in _all():
        session.abandon_after_fork()


atexit.register(_terminate_all)
os.register_at_fork(after_in_child=_abandon_all)
