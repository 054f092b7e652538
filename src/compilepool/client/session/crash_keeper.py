"""Makes a crash folder of each job that has crashed, and then ends its future."""

from __future__ import annotations

import fcntl
import functools
import threading
from collections.abc import Callable

from compilepool.client.session.calls import Call
from compilepool.client.session.threads import Background
from compilepool.errors import CompilePoolError
from compilepool.light_typing import TYPE_CHECKING
from compilepool.text import describe
from compilepool.wire.failure import Failure
from compilepool.wire.messages import Form
from compilepool.wire.payloads import Payload

if TYPE_CHECKING:
    from compilepool.client.session.setup import PoolSetup

_MAX_WAITING_FDS = 16


class CrashKeeper:
    """Keeps the crashed jobs of one pool, one after the other, in the background.

    Args:
        setup: what the pool's processes are made like.
        startup: what its workers start with; None if nothing. It may be closed when this is made.
        background: writes the folders.
        end: called with each call, its failure and its error, when the folder is written.

    Raises:
        OSError: too many open files.
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
        """Have a crash folder made, which takes as long as the disk, and then the call ended.

        Args:
            call: taken from the table already; its payload is closed in the end.
            failure: how it crashed.
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

    def close(self) -> None:
        """There will be no more crashes. Folders that are being made are finished."""
        with self._lock:
            self._is_closed = True
            self._close_if_done()

    def abandon(self) -> None:
        """In a child forked by the user: close all descriptors. Its locks may be held for ever."""
        self._lock = threading.RLock()
        calls, self._calls = self._calls, set()
        for call in calls:
            call.payload.close()
        self.close()

    def _keep_and_end(self, call: Call, failure: Failure) -> None:
        try:
            error = self._kept(call, failure)
        except BaseException as reason:  # noqa: BLE001 - whatever it is, the call must end
            error = without_report(call, reason)
        with self._lock:
            self._calls.discard(call)
            call.payload.close()
            self._close_if_done()
        self._end(call, failure, error)

    def _kept(self, call: Call, failure: Failure) -> CompilePoolError:
        """The job's error, which names the folder, or says why there is none."""
        from compilepool.client.reports import errors as failures

        log = call.future.record.log
        error = failures.error_of(failure, call.name, log)
        try:
            folder = self._folder(call, failure, error)
        except Exception as reason:  # noqa: BLE001 - the crash itself can still be told
            unkept = f"its crash folder could not be written: {describe(reason)}"
            return failures.error_of(failure, call.name, log, unkept=unkept)
        return failures.error_of(failure, call.name, log, folder=folder)

    def _folder(self, call: Call, failure: Failure, error: CompilePoolError) -> str:
        from compilepool.client.crashes.crash_folder import CrashedJob, keep
        from compilepool.client.reports import errors as failures

        facts: dict[str, object] = {
            **failure._asdict(),
            **error.__dict__,
            "message": str(error),
            "where": failures.place_of(failure),
        }
        crashed = CrashedJob(
            call.name,
            call.payload,
            self._startup,
            self._setup.config,
            self._env(call),
            {key: value for key, value in facts.items() if key not in ("text", "folder")},
            failures.report_text(error),
        )
        return str(keep(crashed))

    def _env(self, call: Call) -> dict[str, str]:
        """The environment that it ran in."""
        env = self._setup.env | {name: value or "" for name, value in call.terms.env}
        unset = {name for name, value in call.terms.env if value is None}
        return {name: value for name, value in env.items() if name not in unset}

    def _close_if_done(self) -> None:
        if self._is_closed and not self._calls and self._startup is not None:
            startup, self._startup = self._startup, None
            startup.close()


def without_report(call: Call, reason: BaseException) -> CompilePoolError:
    """The error of a job that has crashed, where an error that says how could not be made."""
    text = (
        f"the worker that ran job {call.name!r} crashed, but its report could not be read here:"
        f" {describe(reason)}"
    )
    try:
        from compilepool.errors import WorkerCrashed
    except (ImportError, OSError, RuntimeError):
        # No descriptor to read it by; or the interpreter shuts down, and multiprocessing, which
        # comes with it, cannot be imported then.
        return CompilePoolError(text)
    return WorkerCrashed(text, job=call.name)
