"""The errors of the pool, all but `WorkerCrashed`."""

from __future__ import annotations

from compilepool.light_typing import Any, lazy_annotations


class CompilePoolError(Exception):
    """Base class of every error of the pool."""


class _OverLimit(CompilePoolError):
    """A job went over a limit of its own, and was ended with all that it had started.

    Attributes:
        job: the job's name.
        limit: what it went over.
        phase: what the job had said that it does, by `report_phase`; empty if nothing.
        python_traceback: of all Python threads of its worker, just before.
        native_traceback: of all threads of its worker, the main one first; empty if they could not
            be had, or were not asked for.
        log: the end of the job's output.
        missing: what could not be found out, why, and what would allow it.
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
    ) -> None:
        super().__init__(message)
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
    """The job ran for longer than its timeout, and was ended with all that it had started.

    Attributes:
        limit: the timeout, in seconds.
        children: the processes that it had started then (`compilepool.wire.native_report`'s
            `ChildProcess`: pid, parent_pid, command, age_s, state, cpu_s), parents first.
    """

    def __init__(self, message: str, *, children: tuple[Any, ...] = (), **known: Any) -> None:
        super().__init__(message, **known)
        self.children = children


@lazy_annotations
class MemoryLimitExceeded(_OverLimit, MemoryError):
    """The job took more memory than its limit, and was ended with all that it had started.

    Attributes:
        limit: its memory limit, in bytes.
        peak: the bytes that it took.
        processes: who took it (`compilepool.wire.failure`'s `ProcessMemory`: pid, name, bytes), the
            largest first.
    """

    def __init__(
        self, message: str, *, peak: int = 0, processes: tuple[Any, ...] = (), **known: Any
    ) -> None:
        super().__init__(message, **known)
        self.peak = peak
        self.processes = processes


class SupervisorDied(CompilePoolError):
    """The supervisor died under this job, was replaced, and the next one died under it as well."""


class PreloadFailed(CompilePoolError):
    """A `preload` module could not be imported, so no worker can be started.

    Attributes:
        module: the name of the module, or "" if the process died outside of an import.
        python_traceback: the traceback of the import error, or faulthandler's if it crashed.
        native_traceback: the native stacks of all threads if it crashed, that of the crash first;
            empty if they could not be had.
        missing: what could not be found out, why, and what would allow it.
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


class SerializationError(CompilePoolError):
    """A job, its result or its exception could not be pickled or unpickled."""


class PoolClosed(CompilePoolError, RuntimeError):
    """The pool was shut down, or belongs to another process (a copy made by `os.fork`)."""


class NestedPoolError(CompilePoolError, RuntimeError):
    """A pool was made inside a worker of a pool."""


class UnsupportedPlatform(CompilePoolError, RuntimeError):
    """This machine lacks something that the pool cannot do without."""


class RemoteTraceback(Exception):
    """The traceback of a job's exception as text; set as the `__cause__` of that exception.

    Attributes:
        text: the traceback.
        log: the end of the job's output.
    """

    def __init__(self, text: str, log: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.log = log

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def rebuild(
    cls: type[CompilePoolError], message: str, state: dict[str, object]
) -> CompilePoolError:
    """An error that was pickled."""
    error = cls(message)
    error.__dict__.update(state)
    return error
