"""Every error of the pool except `WorkerCrashed`."""

from __future__ import annotations

import pickle

from compilepool.light_typing import Any, lazy_annotations


class CompilePoolError(Exception):
    """Base class of every error of the pool."""


class _OverLimit(CompilePoolError):
    """A job exceeded one of its limits. The pool killed it and every process that it had started.

    Attributes:
        job: the job's name.
        limit: the limit that the job exceeded.
        phase: the last phase that the job passed to `report_phase`; "" if it reported none.
        python_traceback: the stacks of all Python threads of the worker just before its end.
        native_traceback: the native stacks of all threads of the worker, the main thread first; ""
            if they could not be read or were not asked for.
        log: the end of the job's output.
        missing: a sentence for each fact that could not be found out, with the reason and what
            would allow it.
        jobs_before: the number of jobs that had ended in the worker.
        last_job: the name of the last of them; "" if there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        job: str = "",
        limit: float = 0,
        phase: str = "",
        python_traceback: str = "",
        native_traceback: str = "",
        log: str = "",
        missing: tuple[str, ...] = (),
        jobs_before: int = 0,
        last_job: str = "",
    ) -> None:
        super().__init__(message)
        self.jobs_before = jobs_before
        self.last_job = last_job
        self.job = job
        self.limit = limit
        self.phase = phase
        self.python_traceback = python_traceback
        self.native_traceback = native_traceback
        self.log = log
        self.missing = missing

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args[0], self.__dict__)


@lazy_annotations
class JobTimeout(_OverLimit, TimeoutError):
    """The job ran longer than its timeout. The pool killed it and every process it had started.

    Attributes:
        job: the job's name.
        limit: the timeout, in seconds.
        phase: the last phase that the job passed to `report_phase`; "" if it reported none.
        python_traceback: the stacks of all Python threads of the worker just before its end.
        native_traceback: the native stacks of all threads of the worker, the main thread first; ""
            if they could not be read.
        log: the end of the job's output.
        children: the processes that the job had started and that were alive at the timeout, parents
            first. Each is a `compilepool.wire.native_report.ChildProcess` with the fields pid,
            parent_pid, command, age_s, state and cpu_s.
        missing: a sentence for each fact that could not be found out, with the reason and what
            would allow it.
        jobs_before: the number of jobs that had ended in the worker.
        last_job: the name of the last of them; "" if there was none.
    """

    def __init__(self, message: str, *, children: tuple[Any, ...] = (), **known: Any) -> None:
        super().__init__(message, **known)
        self.children = children


@lazy_annotations
class MemoryLimitExceeded(_OverLimit, MemoryError):
    """The job exceeded its memory limit. The pool killed it and every process it had started.

    Attributes:
        job: the job's name.
        limit: the memory limit, in bytes.
        peak: the memory that the job was found to take, in bytes.
        processes: the processes that took the memory, the largest first. Each is a
            `compilepool.wire.failure.ProcessMemory` with the fields pid, name and bytes.
        phase: the last phase that the job passed to `report_phase`; "" if it reported none.
        python_traceback: the stacks of all Python threads of the worker just before its end.
        native_traceback: "": native stacks are not read in this case.
        log: the end of the job's output.
        missing: a sentence for each fact that could not be found out, with the reason and what
            would allow it.
        jobs_before: the number of jobs that had ended in the worker.
        last_job: the name of the last of them; "" if there was none.
    """

    def __init__(
        self, message: str, *, peak: int = 0, processes: tuple[Any, ...] = (), **known: Any
    ) -> None:
        super().__init__(message, **known)
        self.peak = peak
        self.processes = processes


class SupervisorDied(CompilePoolError):
    """The supervisor died while it had this job, and so did the supervisor that replaced it.

    With `resubmit=False`, a job fails with this error when the supervisor dies for the first time.
    """


class NodeLost(SupervisorDied):
    """The node that had this job was lost, and so was the node that got it next.

    With `resubmit=False`, a job fails with this error when its first node is lost.

    Attributes:
        job: the job's name.
        node: the name of the node that was lost last.
    """

    def __init__(self, message: str, *, job: str = "", node: str = "") -> None:
        super().__init__(message)
        self.job = job
        self.node = node

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args[0], self.__dict__)


class NoNode(CompilePoolError):
    """No node of a cluster can run the pool's jobs. The message says why, for each of them.

    Attributes:
        reasons: why, by the name of the node.
    """

    def __init__(self, message: str, *, reasons: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reasons = {} if reasons is None else reasons

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args[0], self.__dict__)


class PreloadFailed(CompilePoolError):
    """A `preload` module could not be imported, so no worker can start.

    Attributes:
        module: the name of the module; "" if the process died outside of an import.
        python_traceback: the traceback of the import error; faulthandler's if the import crashed.
        native_traceback: the native stacks of all threads if the import crashed, the crashing
            thread first; "" if they could not be read.
        missing: a sentence for each fact that could not be found out, with the reason and what
            would allow it.
    """

    def __init__(
        self,
        message: str,
        *,
        module: str = "",
        python_traceback: str = "",
        native_traceback: str = "",
        missing: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.module = module
        self.python_traceback = python_traceback
        self.native_traceback = native_traceback
        self.missing = missing

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (type(self), self.args[0], self.__dict__)


class SerializationError(CompilePoolError, pickle.PicklingError):
    """A call, a job's result or its exception could not be pickled or unpickled.

    It is a `pickle.PicklingError`, which programs written for other pools catch.
    """


class PoolClosed(CompilePoolError, RuntimeError):
    """The pool was shut down, or it belongs to another process (this one is a forked copy)."""


class NestedPoolError(CompilePoolError, RuntimeError):
    """A worker of a pool gave a job to a pool, or wanted its processes."""


class UnsupportedPlatform(CompilePoolError, RuntimeError):
    """This machine lacks something that the pool cannot work without."""


class RemoteTraceback(Exception):
    """The traceback of an exception that a job raised, as text.

    It is the `__cause__` of that exception in this process.

    Attributes:
        text: the traceback in the worker, as `traceback.format_exception` formats it.
        log: the end of the job's output.
    """

    def __init__(self, text: str, log: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.log = log

    @property
    def tb(self) -> str:
        """The text, under the name that it has in `concurrent.futures`."""
        return self.text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def rebuild(
    cls: type[CompilePoolError], message: str, state: dict[str, object]
) -> CompilePoolError:
    """Make an error from its pickled parts: class, message and attributes."""
    error = cls(message)
    error.__dict__.update(state)
    return error
