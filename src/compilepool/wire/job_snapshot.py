"""What a worker does at this moment, as the supervisor tells it of a job that runs."""

from __future__ import annotations

import json

from compilepool.light_typing import NamedTuple
from compilepool.wire.messages import ProtocolError, read_json
from compilepool.wire.payloads import Payload, Unpacked, pack


class JobSnapshot(NamedTuple):
    """A job at one moment.

    Attributes:
        state: "queued", "running" or "ended".
        text: Python tracebacks of all threads.
        native: JSON lines of a `NativeReport`.
        phase: what the job calls what it does.
        phase_s: for how long the phase, or the job if there is none, has lasted, in seconds.
        run_s: for how long the job has run, in seconds.
        log: the end of its output until now.
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
