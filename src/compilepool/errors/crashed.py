"""The errors that are slow to import, because of their base class.

They are `BrokenProcessPool`s, so that programs written for `ProcessPoolExecutor` handle them. That
class comes with all of `multiprocessing`, whose import takes a tenth of the time from nothing to
the first result.
"""

from __future__ import annotations

import signal as _signal

from compilepool.errors.base import CompilePoolError, PoolClosed, rebuild

try:
    from concurrent.futures.process import BrokenProcessPool
except RuntimeError:
    # After the end of the main thread, that module cannot be imported any more (CPython's
    # threading._register_atexit). Then nobody can name the class to catch it, either.
    from concurrent.futures import BrokenExecutor as BrokenProcessPool  # type: ignore[assignment]


class WorkerCrashed(CompilePoolError, BrokenProcessPool):
    """The worker process died while it ran this job. Only this job is lost: the pool works on.

    The pool raises this error in two other cases: five workers in a row died while starting, so no
    worker could run the job; or the job's fork server died, twice. The message says which case it
    is.

    The message fits a screen and is safe to print on a terminal. The attributes hold everything
    that is known. Text that the job wrote or chose is not escaped in them.

    Attributes:
        job: the job's name.
        signal: the number of the signal that killed the worker, a `signal.Signals` where Python has
            a name for it; None if the worker exited.
        exitcode: the worker's exit code; None if a signal killed it.
        python_traceback: faulthandler's output: the stacks of all Python threads, the crashing
            thread first; "" if it wrote nothing (SIGKILL, `os._exit`).
        native_traceback: the native stacks of all threads, the crashing thread first; "" if they
            could not be read or the process was gone.
        log: the end of the job's output.
        phase: the last phase that the job passed to `report_phase`; "" if it reported none.
        folder: the path of the crash folder, for `compilepool replay`; "" if none was kept.
        missing: a sentence for each fact that could not be found out, with the reason and what
            would allow it.
        jobs_before: the number of jobs that had ended in the worker.
        last_job: the name of the last of them; "" if there was none.
    """

    __module__ = "compilepool.errors"  # the public module, for tracebacks and pickles

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
        jobs_before: int = 0,
        last_job: str = "",
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
        self.jobs_before = jobs_before
        self.last_job = last_job

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args[0], self.__dict__)


class WorkersKilled(PoolClosed, BrokenProcessPool):
    """`kill_workers` has ended the job while it ran."""

    __module__ = "compilepool.errors"


def _named_signal(number: int | None) -> int | None:
    try:
        return None if number is None else _signal.Signals(number)
    except ValueError:  # a real-time signal, which has no name
        return number
