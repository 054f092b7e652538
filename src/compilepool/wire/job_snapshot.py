"""What a job does at one moment: the supervisor's answer to `CompilePool.dump`."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import all_are, check
from compilepool.wire.payloads import Payload, pack_json, unpack_json


class JobSnapshot(NamedTuple):
    """A job at one moment.

    Attributes:
        state: "queued", "running" or "ended".
        text: the Python tracebacks of all threads.
        native: the JSON lines of a `NativeReport`.
        phase: the phase that the job has reported last; empty if none.
        phase_s: the seconds since that phase began, or since the job began if there is no phase.
        run_s: the seconds that the job has run.
        log: the end of the job's output so far.
    """

    state: str
    text: str = ""
    native: str = ""
    phase: str = ""
    phase_s: float = 0.0
    run_s: float = 0.0
    log: str = ""

    def payload(self) -> Payload:
        """The payload of the DUMPED message for a job."""
        return pack_json(self._asdict())

    @classmethod
    def of_payload(cls, payload: Payload) -> JobSnapshot:
        """The snapshot in a payload, which is closed.

        Raises:
            ProtocolError: the payload holds no valid snapshot.
        """
        return unpack_json(payload, cls._of_fields, "a snapshot of a job")

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> JobSnapshot:
        snapshot = cls(**fields)
        texts = (snapshot.state, snapshot.text, snapshot.native, snapshot.phase, snapshot.log)
        check(all_are(str, *texts) and all_are(int | float, snapshot.phase_s, snapshot.run_s))
        return snapshot
