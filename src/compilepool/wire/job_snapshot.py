"""What a job does at one moment: the supervisor's answer to `CompilePool.dump`."""

from __future__ import annotations

import json

from compilepool.light_typing import NamedTuple
from compilepool.wire.messages import ProtocolError, read_json
from compilepool.wire.payloads import Payload, Unpacked, pack


class JobSnapshot(NamedTuple):
    """A job at one moment.

    Attributes:
        state: "queued", "running" or "ended".
        text: The Python tracebacks of all threads.
        native: The JSON lines of a `NativeReport`.
        phase: The phase that the job has reported last; empty if none.
        phase_s: The seconds since that phase began, or since the job began if there is no phase.
        run_s: The seconds that the job has run.
        log: The end of the job's output so far.
    """

    state: str
    text: str = ""
    native: str = ""
    phase: str = ""
    phase_s: float = 0.0
    run_s: float = 0.0
    log: str = ""

    def payload(self) -> Payload:
        """What the DUMPED message for a job carries."""
        return pack([[json.dumps(self._asdict()).encode()]])

    @classmethod
    def of_payload(cls, payload: Payload) -> JobSnapshot:
        """The snapshot in a payload, which is closed. Raises `ProtocolError` if there is none."""
        with Unpacked(payload) as unpacked:
            data = bytes(unpacked.stream)
        try:
            snapshot = cls(**read_json(data))
        except TypeError:
            raise ProtocolError("not a snapshot") from None
        texts = (snapshot.state, snapshot.text, snapshot.native, snapshot.phase, snapshot.log)
        numbers = (snapshot.phase_s, snapshot.run_s)
        if not all(isinstance(text, str) for text in texts) or not all(
            isinstance(number, int | float) for number in numbers
        ):
            raise ProtocolError("a snapshot with wrong values")
        return snapshot
