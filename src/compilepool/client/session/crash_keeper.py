"""Makes the crash folder of each job that has crashed, and then ends the job's future."""

from __future__ import annotations

import fcntl
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable

from compilepool.client.session import outcomes
from compilepool.client.session.calls import Call
from compilepool.errors import CompilePoolError
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload

if TYPE_CHECKING:
    from compilepool.client.session.setup import PoolSetup

_log = logging.getLogger(__name__)


class Background:
    """Runs tasks one after the other, in a daemon thread that lives while there are tasks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a finalizer that runs within it may wait
        self._tasks: deque[Callable[[], None]] = deque()
        self._thread: threading.Thread | None = None

    def run(self, task: Callable[[], None]) -> None:
        """Run a task soon, or at once in this thread if no other can be started."""
        with self._lock:
            self._tasks.append(task)
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._work, name="compilepool", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # no more threads, or the interpreter is about to end
                self._thread = threading.current_thread()
        self._work()

    def is_here(self) -> bool:
        """Whether the caller is a task."""
        return self._thread is threading.current_thread()

    def wait(self, timeout_s: float) -> None:
        """Wait until there are no tasks. A task that calls this does not wait."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._thread = None
                    return
                task = self._tasks.popleft()
            try:
                task()
            except BaseException:  # noqa: BLE001 - the other tasks must run
                _log.exception("a task in the background failed")


_MAX_WAITING_FDS = 16


class CrashKeeper:
    """Keeps the crashed jobs of one pool, one after the other, in a thread of its own.

    Args:
        snapshot: how the pool's processes are started.
        startup: what its workers start with; None if nothing. The caller may close it afterwards.
        end: called with each job, its failure and its error, once it has a folder.

    Raises:
        OSError: too many files are open.
    """

    def __init__(
        self,
        snapshot: PoolSetup,
        startup: Payload | None,
        end: Callable[[Call, Failure, CompilePoolError], None],
    ) -> None:
        self._end = end
        if startup is not None and startup.fd >= 0:
            startup = startup._replace(fd=fcntl.fcntl(startup.fd, fcntl.F_DUPFD_CLOEXEC, 0))
        self._snapshot = snapshot
        self._startup = startup
        self._background = Background()
        # Reentrant: a finalizer that runs within it may close the pool.
        self._lock = threading.RLock()
        self._jobs: set[Call] = set()
        self._is_closed = False

    def keep(self, job: Call, failure: Failure) -> None:
        """Make the crash folder soon, however slow the disk is, and then end the job's future.

        Args:
            job: the job, which the caller has taken from the table. Its payload is closed.
            failure: why it crashed.
        """
        with self._lock:
            waiting_fds = sum(other.payload.fd >= 0 for other in self._jobs)
            self._jobs.add(job)
        if waiting_fds >= _MAX_WAITING_FDS:
            try:
                job.payload = job.payload.spill()
            except Exception:  # noqa: BLE001 - all but the call can still be kept
                job.payload = Payload(Form.MEMFD)
        self._background.run(functools.partial(self._keep_and_end, job, failure))

    def close(self) -> None:
        """There will be no more crashes. The folders that were asked for are still made."""
        with self._lock:
            self._is_closed = True
            self._close_if_done()

    def wait(self, timeout_s: float) -> None:
        """Wait until all folders are made. A future's callback that calls this does not wait."""
        self._background.wait(timeout_s)

    def is_here(self) -> bool:
        """Whether the caller is the callback of a future, run by this keeper."""
        return self._background.is_here()

    def abandon(self) -> None:
        """Close all descriptors, in a child that the user has forked: locks may be held there."""
        self._lock = threading.RLock()
        jobs, self._jobs = self._jobs, set()
        for job in jobs:
            job.payload.close()
        self.close()

    def _keep_and_end(self, job: Call, failure: Failure) -> None:
        keep = functools.partial(self._write_folder, job)
        error = outcomes.of_failure(failure, job.name, job.future.record.log, keep)
        with self._lock:
            self._jobs.discard(job)
            job.payload.close()
            self._close_if_done()
        self._end(job, failure, error)

    def _write_folder(self, job: Call, facts: dict[str, Any], text: str) -> str:
        from compilepool.client.crashes.crash_folder import CrashedJob, keep

        config, env = self._snapshot.config, self._env(job)
        return str(keep(CrashedJob(job.name, job.payload, self._startup, config, env, facts, text)))

    def _env(self, job: Call) -> dict[str, str]:
        """The environment that the job ran in."""
        env = self._snapshot.env | {name: value or "" for name, value in job.terms.env}
        unset = {name for name, value in job.terms.env if value is None}
        return {name: value for name, value in env.items() if name not in unset}

    def _close_if_done(self) -> None:
        if self._is_closed and not self._jobs and self._startup is not None:
            startup, self._startup = self._startup, None
            startup.close()
