"""A logger that never raises, for threads and states in which the pool must go on."""

from __future__ import annotations

import contextlib
import logging

_CALLERS_LINE = 3  # the record names the line that calls `debug`, `warning`, …


class QuietLogger:
    """A logger of `logging` whose methods never raise. Handlers and filters of the user's may.

    Args:
        name: the logger's name.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def is_enabled_for(self, level: int) -> bool:
        """Whether anything at this level would be logged."""
        try:  # not `suppress`, which takes longer: this runs for each job
            return self._logger.isEnabledFor(level)
        except Exception:  # noqa: BLE001 - a class that the user has set
            return False

    def log(self, level: int, text: str, *arguments: object) -> None:
        """Log at this level; see `logging.Logger.log`."""
        self._log(level, text, arguments)

    def info(self, text: str, *arguments: object) -> None:
        """Log at INFO."""
        self._log(logging.INFO, text, arguments)

    def warning(self, text: str, *arguments: object) -> None:
        """Log at WARNING."""
        self._log(logging.WARNING, text, arguments)

    def exception(self, text: str, *arguments: object) -> None:
        """Log at ERROR, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, text, arguments, with_traceback=True)

    def _log(
        self, level: int, text: str, arguments: tuple[object, ...], *, with_traceback: bool = False
    ) -> None:
        with contextlib.suppress(Exception):
            self._logger.log(
                level, text, *arguments, exc_info=with_traceback, stacklevel=_CALLERS_LINE
            )
