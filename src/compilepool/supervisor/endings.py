"""How runs have ended: counts, and the latest failures, for those who look at the pool."""

from __future__ import annotations

import time
from collections import deque

from compilepool.supervisor.runs import Run
from compilepool.wire.failure import Failure
from compilepool.wire.messages import OUTCOME_BITS
from compilepool.wire.visiting import FailedLook

_KEPT = 32
_LONGEST = 8 * 1024  # characters of a text; the first lines say the most


class Endings:
    """Counts how runs have ended, and keeps the latest failures.

    Attributes:
        by_outcome: the number of runs whose worker has sent each outcome. A list, with room for all
            that a worker may send.
        failed: the number of runs that have failed otherwise.
    """

    def __init__(self) -> None:
        self.by_outcome = [0] * (OUTCOME_BITS + 1)
        self.failed = 0
        self._failures: deque[FailedLook] = deque(maxlen=_KEPT)

    def note_failure(self, run: Run, failure: Failure) -> None:
        """Note that a run has failed, for which its waiters still wait."""
        self.failed += 1
        if not run.waiters:
            return
        short = failure._replace(
            text=failure.text[:_LONGEST],
            native=_whole_lines(failure.native),
            processes=failure.processes[:8],
        )
        self._failures.append(
            FailedLook(self.failed, time.time(), run.name, run.client_pids(), short)
        )

    def failures_since(self, number: int) -> tuple[FailedLook, ...]:
        """The failures that have been kept and came after that one."""
        return tuple(each for each in self._failures if each.number > number)


def _whole_lines(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return text[: text.rfind("\n", 0, _LONGEST) + 1]
