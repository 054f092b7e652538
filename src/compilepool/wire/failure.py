"""A job's failure: why the job has no result of its own.

The supervisor finds the reason and sends it. The client puts it into words.
"""

from __future__ import annotations

import signal
from enum import StrEnum

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import Message, all_are, check
from compilepool.wire.payloads import Payload, lacks_descriptor, of_message, pack_json, unpack_json
from compilepool.wire.usage import NO_USAGE, Usage

KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a process that somebody else has probably killed: not its job, and not the pool."""

TERMINATED = "terminate_workers has ended it"
"""The `Failure.text` of a worker that has got SIGTERM because the user terminates the pool."""


class Cause(StrEnum):
    """What went wrong."""

    CRASH = "crash"  # the worker died while it ran the job
    TEARDOWN = "teardown"  # the worker died while it tore down what a job had left, which had ended
    IDLE = "idle"  # the worker died without a job, after it had run some
    TIMEOUT = "timeout"  # the job ran longer than its timeout
    MEMORY = "memory"  # the job took more memory than its limit
    START = "start"  # several workers in a row died while they started
    FORK_SERVER = "fork server"  # the fork server died under the job for the second time
    PRELOAD = "preload"  # a preload module raised or crashed


class LeftBehind(StrEnum):
    """What earlier jobs have left that may have killed a worker."""

    NOTHING = ""
    THREAD = "thread"  # the thread that crashed was there before the job began
    PROCESS = "process"  # a process was there before the job began, and may have sent the signal


class ProcessMemory(NamedTuple):
    """The memory that one process takes.

    Attributes:
        pid: the process's PID.
        name: the program's name, as `ps` shows it.
        bytes: the bytes of memory that it takes, without those that it shares with processes
            outside the job.
    """

    pid: int
    name: str
    bytes: int

    def is_valid(self) -> bool:
        """Whether the values are of the right types."""
        return all_are(int, self.pid, self.bytes) and isinstance(self.name, str)


class Failure(NamedTuple):
    """Why a job failed, and what is known about it.

    Attributes:
        cause: what went wrong.
        exitcode: the exit code of the process that died; the negated signal number if a signal
            killed it; None if the process could not be started, did not die, or its exit code is
            unknown.
        module: for PRELOAD, the name of the preload module.
        text: a Python traceback, or the reason why the pool killed or could not start the process.
        native: the JSON lines of a `NativeReport`; empty if nobody inspected the process.
        phase: the phase that the job had reported last; empty if none.
        phase_s: the seconds since that phase began, or since the job began if there is no phase.
        peak_bytes: the largest resident set that the process, or one of its children that had
            ended, ever had, in bytes, getrusage(2); 0 if unknown.
        is_out_of_memory: whether the kernel killed a process for lack of memory just then; None if
            the kernel does not tell.
        limit: the limit that the job exceeded, in seconds or bytes.
        processes: for MEMORY, the worker and its descendants, the largest first.
        usage: the time and memory that the job used.
        jobs_before: the number of jobs that had ended in the worker.
        last_job: the name of the last of them; empty if there was none.
        left_behind: what earlier jobs have left that may have killed the worker.
        kept_by: the PID of the client that makes the crash folder, because its job has had the same
            run; 0: the client that gets this failure makes it.
    """

    cause: Cause
    exitcode: int | None = None
    module: str = ""
    text: str = ""
    native: str = ""
    phase: str = ""
    phase_s: float = 0.0
    peak_bytes: int = 0
    is_out_of_memory: bool | None = None
    limit: float = 0
    processes: tuple[ProcessMemory, ...] = ()
    usage: Usage = NO_USAGE
    jobs_before: int = 0
    last_job: str = ""
    left_behind: LeftBehind = LeftBehind.NOTHING
    kept_by: int = 0

    @property
    def is_innocent(self) -> bool:
        """Whether the worker was probably killed from outside, or by what another job has left."""
        is_from_outside = self.exitcode in KILLED_FROM_OUTSIDE and not self.text
        return self.cause is Cause.CRASH and (is_from_outside or bool(self.left_behind))

    @property
    def is_after_job(self) -> bool:
        """Whether the worker died after its last job had ended."""
        return self.cause in (Cause.TEARDOWN, Cause.IDLE)

    @property
    def is_crash(self) -> bool:
        """Whether the worker has died, and not because the user has terminated the pool."""
        return self.cause is Cause.CRASH and self.text != TERMINATED

    def payload(self) -> Payload:
        """The payload of the FAILED message for a job."""
        return pack_json(self._asdict())

    @classmethod
    def of_message(cls, message: Message) -> Failure:
        """The failure in a FAILED message, whose descriptor is closed.

        If too many files are open, the descriptor gets lost on its way, and with it the report.

        Raises:
            ProtocolError: there is no failure in the message.
        """
        if lacks_descriptor(message):
            return cls(Cause.CRASH, text="its report got lost: too many open files")
        return cls.of_payload(of_message(message))

    @classmethod
    def of_payload(cls, payload: Payload) -> Failure:
        """The failure in a payload, which is closed.

        Raises:
            ProtocolError: the payload holds no valid failure.
        """
        return unpack_json(payload, cls.of_fields, "a failure")

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Failure:
        """The failure of which `_asdict` has made these fields, after JSON.

        Raises:
            ValueError, TypeError, KeyError: they are not those of a failure.
        """
        fields["cause"] = Cause(fields["cause"])
        fields["processes"] = tuple(ProcessMemory(*each) for each in fields["processes"])
        fields["usage"] = Usage.of_values(fields["usage"])
        fields["left_behind"] = LeftBehind(fields["left_behind"])
        failure = cls(**fields)
        check(
            all_are(
                str, failure.module, failure.text, failure.native, failure.phase, failure.last_job
            )
            and isinstance(failure.exitcode, int | None)
            and all_are(int, failure.peak_bytes, failure.jobs_before, failure.kept_by)
            and isinstance(failure.is_out_of_memory, bool | None)
            and all_are(int | float, failure.phase_s, failure.limit)
            and all(each.is_valid() for each in failure.processes)
        )
        return failure


class KeyCrash(NamedTuple):
    """A crash of which clients hear whose jobs have not waited for the run.

    Attributes:
        key: the key of the run.
        job: the name of the job that has crashed.
        failure: why.
    """

    key: str
    job: str
    failure: Failure

    def payload(self) -> Payload:
        """The payload of the KEY_CRASHED message."""
        return pack_json([self.key, self.job, self.failure._asdict()])

    @classmethod
    def of_payload(cls, payload: Payload) -> KeyCrash:
        """The crash in a payload, which is closed.

        Raises:
            ProtocolError: the payload holds no valid crash.
        """
        return unpack_json(payload, cls._of_values, "a crash")

    @classmethod
    def _of_values(cls, values: list[Any]) -> KeyCrash:
        key, job, fields = values
        check(all_are(str, key, job))
        return cls(key, job, Failure.of_fields(fields))
