"""Makes the crash folder of each job that has crashed, and then ends the job's future."""

from __future__ import annotations

import fcntl
import functools
import threading
from collections.abc import Callable

from compilepool.client.session import outcomes
from compilepool.client.session.calls import Call
from compilepool.client.session.threads import Background
from compilepool.errors import CompilePoolError
from compilepool.light_typing import TYPE_CHECKING, Any
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload

if TYPE_CHECKING:
    from compilepool.client.connection.setup import PoolSetup


_MAX_WAITING_FDS = 16


class CrashKeeper:
    """Keeps the crashed jobs of one pool, one after the other, in the background.

    Args:
        setup: what the pool's processes are made like.
        startup: what its workers start with; None if nothing. The caller may close it afterwards.
        background: writes the folders.
        end: called with each call, its failure and its error, once it has a folder.

    Raises:
        OSError: too many files are open.
    """

    def __init__(
        self,
        setup: PoolSetup,
        startup: Payload | None,
        background: Background,
        end: Callable[[Call, Failure, CompilePoolError], None],
    ) -> None:
        self._end = end
        if startup is not None and startup.fd >= 0:
            startup = startup._replace(fd=fcntl.fcntl(startup.fd, fcntl.F_DUPFD_CLOEXEC, 0))
        self._setup = setup
        self._startup = startup
        self._background = background
        # Reentrant: a finalizer that runs within it may close the pool.
        self._lock = threading.RLock()
        self._calls: set[Call] = set()
        self._is_closed = False

    def keep(self, call: Call, failure: Failure) -> None:
        """Make the crash folder soon, however slow the disk is, and then end the call's future.

        Args:
            call: the call, which the caller has taken from the table. Its payload is closed.
            failure: why it crashed.
        """
        with self._lock:
            waiting_fds = sum(other.payload.fd >= 0 for other in self._calls)
            self._calls.add(call)
        if waiting_fds >= _MAX_WAITING_FDS:
            try:
                call.payload = call.payload.spill()
            except Exception:  # noqa: BLE001 - all but the payload can still be kept
                call.payload = Payload(Form.MEMFD)
        self._background.run(functools.partial(self._keep_and_end, call, failure))

    def keep_ended(self, job: str, facts: dict[str, Any], text: str) -> str:
        """Make the crash folder of a job that had ended when its worker crashed.

        Args:
            job: the job's name.
            facts: the facts of the crash.
            text: the report for people.

        Returns:
            The path of the folder. It holds no call.
        """
        from compilepool.client.crashes.crash_folder import CrashedJob, keep

        setup = self._setup
        return str(keep(CrashedJob(job, None, None, setup.config, setup.env, facts, text)))

    def close(self) -> None:
        """There will be no more crashes. The folders that were asked for are still made."""
        with self._lock:
            self._is_closed = True
            self._close_if_done()

    def abandon(self) -> None:
        """Close all descriptors, in a child that the user has forked: locks may be held there."""
        self._lock = threading.RLock()
        calls, self._calls = self._calls, set()
        for call in calls:
            call.payload.close()
        self.close()

    def _keep_and_end(self, call: Call, failure: Failure) -> None:
        keep = functools.partial(self._write_folder, call)
        error = outcomes.of_failure(failure, call.name, call.future.record.log, keep)
        try:
            with self._lock:
                self._calls.discard(call)
                call.payload.close()
                self._close_if_done()
        finally:
            self._end(call, failure, error)

    def _write_folder(self, call: Call, facts: dict[str, Any], text: str) -> str:
        from compilepool.client.crashes.crash_folder import CrashedJob, keep

        config, env = self._setup.config, self._env(call)
        facts = {**facts, "seed": call.terms.seed}
        job = CrashedJob(call.name, call.payload, self._startup, config, env, facts, text)
        return str(keep(job))

    def _env(self, call: Call) -> dict[str, str]:
        """The environment that the job ran in."""
        env = self._setup.env | {name: value or "" for name, value in call.terms.env}
        unset = {name for name, value in call.terms.env if value is None}
        return {name: value for name, value in env.items() if name not in unset}

    def _close_if_done(self) -> None:
        if self._is_closed and not self._calls and self._startup is not None:
            startup, self._startup = self._startup, None
            startup.close()
