"""Whether the kernel has just killed somebody for want of memory."""

from __future__ import annotations

import time

from compilepool.wire.cgroups import oom_kills_file, oom_kills_in

_JUST_NOW_S = 1.0


class OomWatch:
    """Compares the kernel's counter with what it was."""

    def __init__(self) -> None:
        self._path = oom_kills_file()
        self._count = self._read()
        self._seen_at = 0.0

    def look(self) -> None:
        """From now on, what the counter counts is news."""
        self._count = self._read()

    def has_struck(self) -> bool | None:
        """Whether it has killed since the last look, or was found to have within a second.

        Several may die of the same want.

        Returns:
            None if the kernel does not tell.
        """
        before, self._count = self._count, self._read()
        if before is None or self._count is None:
            return None
        now = time.monotonic()
        if self._count > before:
            self._seen_at = now
        return now - self._seen_at < _JUST_NOW_S

    def _read(self) -> int | None:
        return None if self._path is None else oom_kills_in(self._path)
