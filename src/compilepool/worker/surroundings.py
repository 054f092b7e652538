"""Restores, after each job, what would otherwise decide the fate of the next one.

A timer that a job leaves would kill the next job; a standard stream that it closes or replaces
would swallow the next job's output. Everything else stays as a job leaves it, as in every other
executor: modules, caches, signal handlers and masks, the working directory, limits.
"""

from __future__ import annotations

import contextlib
import functools
import select
import signal
import sys
import time

from compilepool.light_typing import Any
from compilepool.worker.meter import SHORT_S
from compilepool.worker.output_capture import OutputCapture

_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_STANDARD_FDS = (0, 1, 2)
_OFF = (0.0, 0.0)

_setitimer = signal.setitimer
_alarm = signal.alarm
_has_set_timer = False


class Surroundings:
    """The timers and the standard streams of a worker.

    What the preload and the initializer have set up stays: a timer that runs when this object is
    made is left alone, and the streams of that moment are the ones that each job gets.

    System calls would take a noticeable part of a short job. After one, they are made only if the
    job has set a timer by the functions of `signal`, which are replaced to notice that.

    Args:
        output: where the jobs' output goes.

    Attributes:
        since: the time at which the present job has begun, by `time.monotonic()`.
    """

    def __init__(self, output: OutputCapture) -> None:
        self.since = 0.0
        self._output = output
        self._timers = [timer for timer in _TIMERS if signal.getitimer(timer) == _OFF]
        self._stdout: Any = sys.stdout
        self._stderr: Any = sys.stderr
        self._poll = select.poll()
        for fd in _STANDARD_FDS:
            self._poll.register(fd, 0)  # it tells of a closed descriptor unasked, poll(2)
        signal.setitimer, signal.alarm = _noting_setitimer, _noting_alarm

    def restore(self) -> None:
        """Stop the timers of a job that has just ended, and mend the standard streams.

        Never raises, also if a handler of the job's raises because its timer goes off just now.
        """
        while True:
            try:
                is_short = time.monotonic() - self.since < SHORT_S
                if _has_set_timer or not is_short:
                    self._stop_timers()
                break
            except BaseException:  # noqa: BLE001 - by the job's handler; stop the timers again
                continue
        if not (is_short and self._output.is_captured):
            self.reopen_fds()
        if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
            self.mend_streams()

    def mend_streams(self) -> None:
        """Put the original streams back, or new ones where the job has closed those."""
        self.reopen_fds()
        with contextlib.suppress(BaseException):  # the job may have put any object there
            self._stdout = sys.stdout = _mended(sys.stdout, self._stdout, 1)
        with contextlib.suppress(BaseException):
            self._stderr = sys.stderr = _mended(sys.stderr, self._stderr, 2)
        self.reopen_fds()  # a stream of the job's may have closed its descriptor at its end

    def reopen_fds(self) -> None:
        """Open the standard descriptors that a job has closed, before others get their numbers."""
        for fd, event in self._poll.poll(0):
            if event & select.POLLNVAL:
                with contextlib.suppress(OSError):  # the job has closed everything
                    self._output.reopen(fd)

    def _stop_timers(self) -> None:
        global _has_set_timer  # noqa: PLW0603 - a fact about the process as a whole
        for timer in self._timers:
            _setitimer(timer, 0.0)
        _has_set_timer = False


@functools.wraps(_setitimer)
def _noting_setitimer(*arguments: Any) -> Any:
    global _has_set_timer  # noqa: PLW0603 - a fact about the process as a whole
    _has_set_timer = True
    return _setitimer(*arguments)


@functools.wraps(_alarm)
def _noting_alarm(*arguments: Any) -> Any:
    global _has_set_timer  # noqa: PLW0603 - a fact about the process as a whole
    _has_set_timer = True
    return _alarm(*arguments)


def _is_closed(stream: Any) -> bool:
    try:
        return bool(stream.closed)
    except ValueError:  # the job has detached its buffer
        return True
    except AttributeError:  # it is None, or what the preload has put there cannot be closed
        return False


def _mended(present: Any, original: Any, fd: int) -> Any:
    """The stream for the next job: the original one, or a new one if the job has closed that."""
    if present is not original:
        with contextlib.suppress(Exception):
            present.flush()
    if not _is_closed(original):
        return original
    errors = "backslashreplace" if fd == 2 else "strict"  # as Python's own
    return open(fd, "w", buffering=1, errors=errors, closefd=False)
