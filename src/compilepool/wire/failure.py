"""Why a job ended without a result of its own: found by the supervisor, worded by the client."""

from __future__ import annotations

import signal
from enum import StrEnum

from compilepool.light_typing import NamedTuple
from compilepool.wire.messages import Message, ProtocolError, read_json
from compilepool.wire.payloads import Payload, Unpacked, lacks_descriptor, of_message, pack
from compilepool.wire.usage import NO_USAGE, Usage

KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of a process that neither its job nor the pool has ended, as far as one can tell."""


class Cause(StrEnum):
    """What went wrong."""

    CRASH = "crash"  # the worker died while it ran the job
    TIMEOUT = "timeout"  # the job ran for longer than it may
    MEMORY = "memory"  # the job took more memory than it may
    START = "start"  # workers die while they start, again and again
    FORK_SERVER = "fork server"  # the fork server died under the job, again
    PRELOAD = "preload"  # a preload module raised or crashed


class ProcessMemory(NamedTuple):
    """A process, and the memory that it takes.

    Attributes:
        pid: its pid.
        name: the program's, as `ps` shows it.
        bytes: of memory, without what it shares with those that are not the job's.
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
    """One failure.

    Attributes:
        cause: what went wrong.
        exitcode: of the process that died; negated signal number if a signal killed it; None if
            it could not be started, did not die, or nobody knows.
        module: the preload module, for PRELOAD.
        text: a Python traceback, or what the kernel said.
        native: JSON lines of a `NativeReport`; empty if nobody has looked.
        phase: what the job had called what it did.
        phase_s: for how long the phase, or the job if there is none, had lasted, in seconds.
        peak_bytes: the most memory that the process, or one of its children that had ended, had
            resident, getrusage(2); 0 if unknown.
        is_out_of_memory: whether the kernel has killed somebody for memory just then; None if it
            does not tell.
        limit: the limit that the job went over, in seconds or bytes.
        processes: for MEMORY, the worker and what is below it, the largest first.
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
        """Whether the worker was killed by neither the job nor the pool, as far as one can tell."""
        return self.cause is Cause.CRASH and self.exitcode in KILLED_FROM_OUTSIDE and not self.text

    def payload(self) -> Payload:
        """What the FAILED message for a job carries."""
        import json

        return pack([[json.dumps(self._asdict()).encode()]])

    @classmethod
    def of_message(cls, message: Message) -> Failure:
        """The failure that a FAILED message tells of; its descriptor is closed.

        If the descriptor got lost on its way, because too many files are open, so is the report.

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
