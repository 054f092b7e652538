"""Why a job ended without a result. The supervisor finds it out, the client puts it into words."""

from __future__ import annotations

import signal
from enum import StrEnum

from compilepool.light_typing import NamedTuple
from compilepool.wire.messages import Message, ProtocolError, read_json
from compilepool.wire.payloads import Payload, Unpacked, lacks_descriptor, of_message, pack
from compilepool.wire.usage import NO_USAGE, Usage

KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a process that somebody else has probably killed: not its job, and not the pool."""


class Cause(StrEnum):
    """What went wrong."""

    CRASH = "crash"  # the worker died while it ran the job
    TIMEOUT = "timeout"  # the job ran longer than its timeout
    MEMORY = "memory"  # the job took more memory than its limit
    START = "start"  # workers could not be started, or died while starting, several times in a row
    FORK_SERVER = "fork server"  # the fork server died under the job for the second time
    PRELOAD = "preload"  # a preload module raised or crashed


class ProcessMemory(NamedTuple):
    """A process of a job, and the memory that it takes.

    Attributes:
        pid: the process id.
        name: the name of the program, as `ps` shows it.
        bytes: the memory, without what the process shares with processes that are not the job's.
    """

    pid: int
    name: str
    bytes: int

    def is_valid(self) -> bool:
        """Whether the values are of the right types."""
        return (
            isinstance(self.pid, int) and isinstance(self.name, str) and isinstance(self.bytes, int)
        )


class Failure(NamedTuple):
    """Why a job ended without a result, or why there is no worker.

    Attributes:
        cause: what went wrong.
        exitcode: the exit code of the process that died, or the negated signal number; None if it
            could not be started, did not die, or nobody knows.
        module: the module that the process was preloading; empty if none.
        text: a Python traceback, or the reason in words.
        native: JSON lines of a `NativeReport`; empty if nobody has looked into the process.
        phase: the phase that the job was in, see `report_phase`; empty if it has named none.
        phase_s: how long the phase, or the job if it has named none, had lasted, in seconds.
        peak_bytes: the most memory that the process, or one of its children that had ended, had
            resident, getrusage(2); 0 if unknown.
        is_out_of_memory: for a process that SIGKILL has ended: whether the kernel's out-of-memory
            killer struck at that time. None if that is unknown.
        limit: for TIMEOUT and MEMORY, the limit that the job went over, in seconds or bytes.
        processes: for MEMORY, the worker and the processes below it, the largest first.
        usage: what the job has used.
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

    @property
    def is_from_outside(self) -> bool:
        """Whether somebody other than the job and the pool has probably killed the worker."""
        return self.cause is Cause.CRASH and self.exitcode in KILLED_FROM_OUTSIDE and not self.text

    def payload(self) -> Payload:
        """What the FAILED message for a job carries."""
        import json

        return pack([[json.dumps(self._asdict()).encode()]])

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
        """The failure in a payload, which is closed. Raises `ProtocolError` if there is none."""
        with Unpacked(payload) as unpacked:
            data = bytes(unpacked.stream)
        try:
            fields = read_json(data)
            fields["cause"] = Cause(fields["cause"])
            fields["processes"] = tuple(ProcessMemory(*each) for each in fields["processes"])
            fields["usage"] = Usage.of_values(fields["usage"])
            failure = cls(**fields)
        except (ValueError, TypeError, KeyError):
            raise ProtocolError("not a failure") from None
        if not failure._is_valid():
            raise ProtocolError("a failure with wrong values")
        return failure

    def _is_valid(self) -> bool:
        texts = (self.module, self.text, self.native, self.phase)
        return (
            all(isinstance(text, str) for text in texts)
            and isinstance(self.exitcode, int | None)
            and isinstance(self.phase_s, int | float)
            and isinstance(self.peak_bytes, int)
            and isinstance(self.is_out_of_memory, bool | None)
            and isinstance(self.limit, int | float)
            and all(each.is_valid() for each in self.processes)
        )
