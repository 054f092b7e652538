"""The supervisors of a pool, one after the other: starts them, outlives them, ends the last."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable

from compilepool.client.connection.connection import SupervisorConnection
from compilepool.client.connection.setup import PoolSetup
from compilepool.client.connection.sharing import CannotMeet, wants_to_share
from compilepool.client.connection.supervisor_process import SupervisorProcess, end_within_bound
from compilepool.client.options import PoolOptions
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.client.session.failed_calls import FailedCall, FailedCalls, end_all
from compilepool.client.session.processes import Processes
from compilepool.client.session.receiving import Receiver
from compilepool.client.session.sending import SupervisorLink
from compilepool.client.session.threads import PoolThreads
from compilepool.errors import CompilePoolError
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.text import describe
from compilepool.wire.messages import Kind, Message, Shutdown
from compilepool.wire.payloads import Payload

_BURY_S = 5.0
_TERMINATE_S = 0.5

_log = QuietLogger(__name__)


class Supervision:
    """Has a supervisor there while there is work, and has the pool's processes end.

    A supervisor that dies gets a successor, to which the unfinished calls are sent again.

    Args:
        options: the pool's.
        setup: what the processes are made like; None: like this process when they start.
        startup: what every worker starts with, which is taken over; None if nothing.
        calls: the unfinished calls, whose lock guards this object.
        link: the way to the current supervisor.
        failed: ends the calls that have failed.
        processes: what the user wants of the processes.
        receiver: reads from the supervisor.
        threads: those of the pool.
        on_lost: called under the lock when a supervisor is gone; told whether another one follows.
        on_end: called when the last one is gone and the pool takes no more jobs.

    Attributes:
        is_closing: whether the pool takes no more jobs.
        is_terminated: whether its jobs and processes are to end at once.
    """

    def __init__(
        self,
        options: PoolOptions,
        setup: PoolSetup | None,
        startup: Payload | None,
        calls: UnfinishedCalls,
        link: SupervisorLink,
        failed: FailedCalls,
        processes: Processes,
        receiver: Receiver,
        threads: PoolThreads,
        on_lost: Callable[[bool], None],
        on_end: Callable[[], None],
    ) -> None:
        self._options = options
        self._setup = setup
        self._startup = startup
        self._calls = calls
        self._link = link
        self._failed = failed
        self._processes = processes
        self._receiver = receiver
        self._threads = threads
        self._on_lost = on_lost
        self._on_end = on_end
        self._is_changing = False
        """Whether a supervisor is being started or replaced. Calls that come now, from a signal
        handler or a finalizer, are sent when that is done."""
        self._has_connected = False
        self._is_cancelling = False
        self.is_closing = False
        self.is_terminated = False

    # Under the lock

    def start(self) -> None:
        """Start a supervisor, if there is none.

        Raises:
            CompilePoolError: that is impossible.
        """
        if self._link.supervisor is not None or self._is_changing:
            return
        self._is_changing = True
        try:
            supervisor = self._connect()
            # A daemon: interpreter exit must not wait for it, but end it (`terminate`).
            self._threads.reader = threading.Thread(
                target=self._read, args=(supervisor,), name="compilepool", daemon=True
            )
            self._threads.reader.start()
            self._threads.latest_reader = self._threads.reader
        except BaseException as error:
            self._threads.reader = None
            self._link.drop(_BURY_S)
            # First: a signal handler that submits after `take_all` tries to start one itself.
            self._is_changing = False
            why = f"no supervisor could be started: {describe(error)}"
            failed = list(self._failed.take_all(why))
            self._threads.background.run(functools.partial(end_all, failed))
            if isinstance(error, OSError | RuntimeError):  # RuntimeError: no more threads
                what = f"the pool's processes could not be started: {error}"
                raise CompilePoolError(what) from error
            raise
        finally:
            self._is_changing = False
        self._send_unsent()
        if self.is_terminated:  # by another thread, which did not see this supervisor yet
            supervisor.request_end()

    def close(self, *, cancel_futures: bool) -> threading.Thread | None:
        """Take no more jobs, and end the processes when the accepted jobs have ended.

        Args:
            cancel_futures: whether to cancel the jobs that no worker has.

        Returns:
            The thread that ends when that is done; None if it is done.
        """
        self.is_closing = True
        self._is_cancelling |= cancel_futures
        self._send_closing()
        if self._threads.reader is None:
            self.drop_startup()
        return self._threads.reader

    def drop_startup(self) -> None:
        """Close what supervisors are started with: there will be no other."""
        self._calls.spares.close()
        if self._startup is not None:
            self._startup.close()
            self._startup = None
        self._failed.close()

    @property
    def has_started(self) -> bool:
        """Whether there is or was a supervisor, or one is being started."""
        return self._is_changing or self._has_connected

    def abandon(self) -> None:
        """After a fork, in the child: let go of the supervisor, which is not this process's."""
        supervisor, self._link.supervisor, self._threads.reader = self._link.supervisor, None, None
        self._threads.latest_reader = None
        if supervisor is not None:
            supervisor.close()
        self.is_closing = True
        self.drop_startup()

    def _connect(self) -> SupervisorConnection:
        if self._setup is None:
            self._setup = PoolSetup(self._options, is_shared=wants_to_share(self._options))
        if self._setup.is_shared:
            try:
                return self._join(self._setup)
            except CannotMeet as why:
                self._setup = PoolSetup(self._options)
                # In the background: a handler of the user's may wait for the lock.
                self._threads.background.run(
                    functools.partial(_log.warning, "the pool is not shared: %s", why)
                )
        setup = self._setup
        supervisor = SupervisorProcess(setup.env, setup.python_flags)
        try:
            # All that follows is done while that starts.
            if self._options.keep_crashes:
                self._failed.make_folders(setup, self._startup)
            self._link.connect(supervisor, setup.config, self._startup)
            self._has_connected = True
        except BaseException:
            supervisor.discard(_BURY_S)
            raise
        return supervisor

    def _join(self, setup: PoolSetup) -> SupervisorConnection:
        from compilepool.client.connection.joining import join  # few pools need it

        supervisor = join(self._options, setup, self._startup)
        try:
            if self._options.keep_crashes:
                self._failed.make_folders(setup, self._startup)
            self._link.share(supervisor, setup.own_env)
            self._has_connected = True
        except BaseException:
            supervisor.discard(_BURY_S)
            raise
        return supervisor

    def _send_unsent(self) -> None:
        """Send the calls that were submitted while there was no supervisor."""
        for id, call in self._calls.items():
            if (
                call.is_told and not call.sends
            ):  # `submit` itself sends the one that it has not told
                call.sends = int(self._link.send_call(id, call))

    def _send_closing(self) -> None:
        if self._is_cancelling:
            self._link.send(Message(Kind.CANCEL_QUEUED))
        if self.is_closing:
            how = Shutdown.NOW if self.is_terminated else Shutdown.DRAIN
            self._link.send(Message(Kind.SHUTDOWN, flag=how))

    # Any thread, without the lock: whoever has it may be sending to a supervisor that hangs

    def terminate(self, *, wait: bool) -> bool:
        """Take no more jobs, kill those that run, and end the processes, within a bound.

        Returns:
            Whether all is over; False also if `wait` is False.
        """
        self.is_terminated = True
        self.is_closing = True
        supervisor = self._link.supervisor
        if supervisor is None and self._calls.lock.acquire(timeout=_TERMINATE_S):
            self._calls.lock.release()  # nobody is starting one any more
            supervisor = self._link.supervisor
        if supervisor is not None:
            supervisor.request_end()
        if not wait or self._threads.is_here():
            return False
        reader = self._threads.latest_reader
        if supervisor is not None and reader is not None:
            end_within_bound(supervisor, reader, self._calls.lock, _TERMINATE_S)
        elif reader is not None:
            reader.join(_TERMINATE_S)  # its supervisor is gone, and it may still end futures
        self._threads.background.wait(_TERMINATE_S)
        return reader is None or not reader.is_alive()

    # The reader thread

    def _read(self, supervisor: SupervisorConnection | None) -> None:
        try:
            while supervisor is not None:
                supervisor = self._outlive(supervisor)
        except BaseException as error:  # noqa: BLE001 - nobody else would end the futures
            self._give_up(error)
        if self.is_closing:
            self._on_end()

    def _outlive(self, supervisor: SupervisorConnection) -> SupervisorConnection | None:
        """Read from a supervisor until it is dead. Returns the next one, if there is work."""
        trouble = ""
        try:
            self._receiver.read_from(supervisor)
        except Exception as error:  # noqa: BLE001 - it is logged, and mended
            trouble = f"it could not be read from: {describe(error)}"
            supervisor.kill()
            _log.exception("cannot read from the supervisor, which is replaced")
        exitcode = supervisor.bury(_BURY_S)
        failed: list[FailedCall] = []
        try:
            successor, resent = self._succeed(supervisor, exitcode, trouble, failed)
        finally:
            end_all(failed)  # whatever else fails: they are not in the table any more
        if successor is not None:  # not under the lock, which a handler of the user's may wait for
            _log.warning("supervisor died; %d unfinished jobs are run again", resent)
        return successor

    def _succeed(
        self,
        dead: SupervisorConnection,
        exitcode: int | None,
        trouble: str,
        failed: list[FailedCall],
    ) -> tuple[SupervisorConnection | None, int]:
        """After a supervisor's end: start the next one, if there is work for it.

        Args:
            dead: the supervisor, which is dead.
            exitcode: its exit code, as `bury` returned it.
            trouble: why this process has killed it; "" if it has not.
            failed: gets the calls that are lost, even if this raises.

        Returns:
            The next one, or None; and how many calls it has got.
        """
        with self._calls.lock:
            self._is_changing = True
            try:
                # First: a child forked meanwhile must not close it again.
                self._link.supervisor = None
                dead.close()
                if self.is_terminated:
                    failed += self._failed.take_terminated()
                else:
                    resubmit = self._options.resubmit and not self._link.are_workers_terminated
                    failed += self._failed.take_lost(exitcode, trouble, resubmit=resubmit)
                failed += self._failed.take_closed()
                resent = len(self._calls)
                if resent:
                    failed += self._resend()
            finally:
                self._is_changing = False
            successor = self._link.supervisor
            self._on_lost(successor is not None)
            if successor is None:
                self._threads.reader = None
                if self.is_closing:
                    self.drop_startup()
            return successor, resent

    def _resend(self) -> list[FailedCall]:
        try:
            self._connect()
            for id, call in self._calls.items():
                call.future.record.log = ""  # of the run that died
                call.sends += 1  # even if this supervisor is dead already: there is an end to it
                self._link.send_call(id, call)
            self._link.flush()
            self._processes.resend()
            self._send_closing()
        except OSError as error:
            self._link.drop(_BURY_S)
            why = f"its supervisor died, and no other could be started: {error}"
            return list(self._failed.take_all(why))
        return []

    def _give_up(self, error: BaseException) -> None:
        """End all futures, because this thread cannot go on; then clean up, as far as that works.

        Whatever has failed may fail again: the program may have replaced any function.
        """
        with self._calls.lock:
            supervisor, self._link.supervisor = self._link.supervisor, None
            self._threads.reader = None
            self._is_changing = False
            why = f"its pool's reader failed: {describe(error)}"
            failed = list(self._failed.take_all(why))
        end_all(failed)
        _log.exception("the pool's reader failed")
        with contextlib.suppress(Exception), self._calls.lock:
            self._on_lost(False)
        if supervisor is not None:
            with contextlib.suppress(Exception):
                supervisor.discard(_BURY_S)
        if self.is_closing:
            with contextlib.suppress(Exception), self._calls.lock:
                self.drop_startup()
