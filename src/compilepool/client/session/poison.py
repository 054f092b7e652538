"""The keys whose jobs crash their worker again and again."""

from __future__ import annotations

import threading

from compilepool.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compilepool.errors import CompilePoolError, WorkerCrashed

MAX_CRASHES = 3
"""After so many crashes in a row, jobs with this key do not run any more."""


class _Crashes:
    def __init__(self) -> None:
        self.count = 0
        self.message = ""
        self.known: dict[str, object] = {}


class PoisonedKeys:
    """Counts the crashes of each key of one pool. Any thread may call it."""

    def __init__(self) -> None:
        # Reentrant: a finalizer that runs within it may submit.
        self._lock = threading.RLock()
        self._crashes: dict[str, _Crashes] = {}

    def has_crashed(self, key: str, error: CompilePoolError) -> bool:
        """A job with this key has crashed its worker. Returns whether the key is poisoned now."""
        if not key:
            return False
        with self._lock:
            crashes = self._crashes.setdefault(key, _Crashes())
            crashes.count += 1
            # The error itself is not kept: once raised, it keeps alive all that its frames hold.
            crashes.message, crashes.known = str(error), dict(error.__dict__)
            return crashes.count >= MAX_CRASHES

    def has_run(self, key: str) -> None:
        """A job with this key has ended without a crash."""
        if key in self._crashes:  # checked without the lock: nearly no job has crashed
            self.forget(key)

    def forget(self, key: str) -> None:
        """Let jobs with this key run, and count their crashes from zero."""
        with self._lock:
            self._crashes.pop(key, None)

    def error(self, key: str, job: str) -> WorkerCrashed | None:
        """The error for a job that must not run; None if it may run."""
        if key not in self._crashes:
            return None
        with self._lock:
            crashes = self._crashes.get(key)
            if crashes is None or crashes.count < MAX_CRASHES:
                return None
        from compilepool.errors import WorkerCrashed

        error = WorkerCrashed(
            f"job {job!r} was not run: jobs of its key {key!r} have crashed their worker"
            f" {crashes.count} times in a row; fix it, then call pool.forget({key!r});"
            f" the last time:\n{crashes.message}"
        )
        error.__dict__.update({**crashes.known, "job": job})
        return error

    def abandon(self) -> None:
        """After a fork, in the child: the lock may be held for ever."""
        self._lock = threading.RLock()
