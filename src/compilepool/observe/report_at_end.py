"""`ReportAtEnd`: makes the report of a pool when the pool has ended."""

from __future__ import annotations

from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.text import headline

if TYPE_CHECKING:
    from compilepool.observe.observer import Sample

_log = QuietLogger(__name__)


class ReportAtEnd:
    """Makes a report of a pool's trace, when that is whole. A `Consumer`.

    Args:
        trace: the path of the trace.
        report: the path of the page to write.
    """

    def __init__(self, trace: str, report: str) -> None:
        self._trace = trace
        self._report = report
        self._is_over = False

    def sample(self, sample: Sample) -> None:
        """Implements `Consumer.sample`: the trace has what is needed."""

    def close(self) -> None:
        """Implements `Consumer.close`. Trouble is a warning in the log."""
        if self._is_over:
            return
        self._is_over = True
        try:
            from compilepool.observe.trace_report.page import write_report

            write_report([self._trace], self._report)
        except Exception as error:  # noqa: BLE001 - the jobs are done, whatever comes of the report
            _log.warning(
                "the report %s is not written: %s; `compilepool report %s` tries again",
                self._report,
                headline(error),
                self._trace,
            )

    def abandon(self) -> None:
        """Implements `Consumer.abandon`: the report is the parent's."""
        self._is_over = True
