"""What the user wants of a pool's processes: that they start, or that they go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future

from compilepool.client.session.calls import UnfinishedCalls
from compilepool.errors import SupervisorDied
from compilepool.wire.messages import Kind, Message, Readiness

_MAX_WARM_UPS = 2


class Processes:
    """The processes of one pool, as the user has asked for them.

    The last wish is kept, because a supervisor that takes over does not know of it.

    Args:
        calls: the unfinished calls, whose lock guards the session.
        send: sends a message to the supervisor, under that lock; False if there is none.

    Attributes:
        warmth: whether the workers have started.
        idle_memory: how many bytes a worker without a job takes; 0 until that is known.
    """

    def __init__(self, calls: UnfinishedCalls, send: Callable[[Message], bool]) -> None:
        self._calls = calls
        self._send = send
        self._warm_up: Message | None = None
        self._quiesce: Message | None = None
        self.warmth = Warmth()
        self.idle_memory = 0

    def warm_up(self) -> Future[bool]:
        """Have all workers start. Under the lock, and there is a supervisor.

        Returns:
            The future of `Warmth.expect`.
        """
        self._quiesce = None
        number, told = self.warmth.expect()
        self._warm_up = Message(Kind.WARM_UP, number)
        self._send(self._warm_up)
        return told

    def quiesce(self, *, keep_warm: bool) -> None:
        """Let all jobs end, and then all processes but the supervisor.

        Args:
            keep_warm: whether the fork server stays as well.
        """
        with self._calls.lock:
            self._quiesce = Message(Kind.QUIESCE, flag=keep_warm)
            self._warm_up = None
            self._send(self._quiesce)
        self.warmth.quiesced()

    def reload(self) -> None:
        """Have all jobs that have not begun run on a new preload."""
        with self._calls.lock:
            self._send(Message(Kind.RELOAD))

    def job_submitted(self) -> None:
        """A job wakes the pool up. Under the lock."""
        self._quiesce = None

    def resend(self) -> None:
        """Tell a new supervisor, which knows of the calls only. Under the lock."""
        for message in (self._warm_up, self._quiesce):
            if message is not None:
                self._send(message)


def wait_until_warm(warm_up: Callable[[], Future[bool]], timeout_s: float | None) -> bool:
    """Start all workers, and wait until they have started.

    Args:
        warm_up: starts them; see `Processes.warm_up`. Called again if the supervisor dies.
        timeout_s: how long to wait, in seconds; None: without limit.

    Returns:
        False if that took longer, or somebody does not want workers any more.

    Raises:
        CompilePoolError: no worker can start, or supervisors die while workers start.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    for _ in range(_MAX_WARM_UPS):
        told = warm_up()
        try:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if told.result(left_s):
                return True
        except (TimeoutError, CancelledError):
            return False
    raise SupervisorDied("the supervisor died while it started workers, and so did the next")


class Warmth:
    """Whether the workers have started, and who waits for that.

    Its futures end outside of its lock: their callbacks may take the session's.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._readiness = Readiness.NONE
        self._told: Future[bool] | None = None
        self._told_first: Future[bool] | None = None
        self._number = 0

    @property
    def is_warm(self) -> bool:
        """Whether all workers have started that were asked for."""
        return self._readiness is Readiness.ALL

    def expect(self) -> tuple[int, Future[bool]]:
        """Wait for a warm-up that is about to be sent.

        Returns:
            Its number; and a future of whether all workers have started, by this warm-up or a later
            one. It is True; or False if the supervisor is gone; or the error that keeps workers
            from starting. It is cancelled if workers are not wanted any more.
        """
        with self._lock:
            self._number += 1
            if self._told is None:
                self._told = Future()
            return self._number, self._told

    def expect_first(self) -> Future[bool]:
        """Wait for the first worker of a warm-up that is about to be sent.

        Returns:
            A future: True when there is one; or False if the supervisor is gone, or workers are not
            wanted any more; or the error that keeps workers from starting.
        """
        with self._lock:
            if self._told_first is None:
                self._told_first = Future()
            return self._told_first

    def told(self, number: int, readiness: Readiness) -> None:
        """The supervisor has told how many workers there are, after it had got this warm-up."""
        is_of_last = number == self._number or (number == 0 and self._told is None)
        if not is_of_last:
            return  # it did not know of the last warm-up yet
        self._readiness = readiness
        if readiness is Readiness.NONE:
            return
        if first := self._take_first():
            first.set_result(True)
        if readiness is Readiness.ALL and (told := self._take()):
            told.set_result(True)

    def failed(self, number: int, error: BaseException) -> None:
        """Workers cannot start, as the supervisor found after it had got this warm-up."""
        if number != self._number:
            return
        for told in (self._take_first(), self._take()):
            if told:
                told.set_exception(error)

    def quiesced(self) -> None:
        """Nobody wants workers any more."""
        if first := self._take_first():
            first.set_result(False)
        if told := self._take():
            told.cancel()

    def lost(self) -> None:
        """There is no supervisor any more."""
        self._readiness = Readiness.NONE
        for told in (self._take_first(), self._take()):
            if told:
                told.set_result(False)

    def abandon(self) -> None:
        """After a fork, in the child: the lock may be held for ever."""
        self._lock = threading.RLock()

    def _take(self) -> Future[bool] | None:
        with self._lock:
            told, self._told = self._told, None
            return told

    def _take_first(self) -> Future[bool] | None:
        with self._lock:
            told, self._told_first = self._told_first, None
            return told
