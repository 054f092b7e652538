"""Logs the ends of jobs."""

from __future__ import annotations

import logging

from compilepool.light_typing import TYPE_CHECKING
from compilepool.text import headline

if TYPE_CHECKING:
    from compilepool.client.record import JobRecord

_log = logging.getLogger(__name__)


class JobLog:
    """The log of one pool's jobs: failures at INFO, for their futures tell, all else at DEBUG."""

    def submitted(self, id: int, name: str) -> None:
        """As `Observer.submitted`."""

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """As `Observer.ended`."""
        level = logging.DEBUG if error is None else logging.INFO
        if not _log.isEnabledFor(level):
            return
        pid = record.worker_pid
        where = f"in worker {pid} after {record.wall_seconds:.3g} s" if pid else "before it began"
        if error is not None:
            end = f"has failed {where}: {headline(error)}"
        else:
            end = f"was cancelled {where}" if cancelled else f"has ended {where}"
        _log.log(level, "job %r %s", name, end)

    def abandon(self) -> None:
        """As `Observer.abandon`."""
