"""Logs how jobs end."""

from __future__ import annotations

import logging

from compilepool.light_typing import TYPE_CHECKING
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.text import headline

if TYPE_CHECKING:
    from compilepool.observe.record import JobRecord

_log = QuietLogger(__name__)


class JobLog:
    """Logs the end of each job of one pool. An `Observer`.

    Failures are logged at INFO, since the future raises them anyway; all other ends at DEBUG.
    """

    def submitted(self, id: int, name: str) -> None:
        """Implements `Observer.submitted`: submissions are not logged."""

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """Implements `Observer.ended`."""
        level = logging.DEBUG if error is None else logging.INFO
        if not _log.is_enabled_for(level):
            return
        pid = record.worker_pid
        where = f"in worker {pid} after {record.wall_seconds:.3g} s" if pid else "before it began"
        if error is not None:
            end = f"has failed {where}: {headline(error)}"
        else:
            end = f"was cancelled {where}" if cancelled else f"has ended {where}"
        _log.log(level, "job %r %s", name, end)

    def abandon(self) -> None:
        """Implements `Observer.abandon`: there is nothing to drop."""
