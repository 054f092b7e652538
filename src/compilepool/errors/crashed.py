"""`WorkerCrashed` of `errors`, apart from the others.

It is a `BrokenProcessPool`, so that programs written for stock pools understand it: that comes with
all of `multiprocessing`, a tenth of the time from nothing to the first result.
"""

from __future__ import annotations

import signal as _signal
from concurrent.futures.process import BrokenProcessPool

from compilepool.errors.base import CompilePoolError, rebuild


class WorkerCrashed(CompilePoolError, BrokenProcessPool):
    """The worker process died while it ran this job. Only this job is lost: the pool works on.

    Or there was no worker that could run it: five in a row died while starting. Or its fork server
    died under it twice. The message says which. It fits a screen and can be shown by a terminal;
    the attributes have all of it, and what the job has written or chosen as it came.

    Attributes:
        job: the job's name.
        signal: the number of the signal that killed the worker (a `signal.Signals` where Python
            has a name for it), or None if the worker exited.
        exitcode: the exit code, or None if a signal killed the worker.
        python_traceback: what faulthandler wrote as the process died: the stacks of all Python
            threads, that of the crash first; empty if it wrote nothing (SIGKILL, `os._exit`).
        native_traceback: the native stacks of all threads, that of the crash first; empty if they
            could not be had, or the process was gone.
        log: the end of the job's output.
        phase: what the job had said that it does, by `report_phase`; empty if nothing.
        folder: the crash folder, for `compilepool replay`; empty if none was kept.
        missing: what could not be found out, why, and what would allow it.
    """

    __module__ = "compilepool.errors"  # where everybody finds it

    def __init__(
        self,
        message: str,
        *,
        job: str = "",
        signal: int | None = None,
        exitcode: int | None = None,
        python_traceback: str = "",
        native_traceback: str = "",
        log: str = "",
        phase: str = "",
        folder: str = "",
        missing: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.job = job
        self.signal = _named_signal(signal)
        self.exitcode = exitcode
        self.python_traceback = python_traceback
        self.native_traceback = native_traceback
        self.log = log
        self.phase = phase
        self.folder = folder
        self.missing = missing

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args[0], self.__dict__)


def _named_signal(number: int | None) -> int | None:
    try:
        return None if number is None else _signal.Signals(number)
    except ValueError:  # a real-time signal
        return number
