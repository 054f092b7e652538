"""How much memory jobs took before: pure."""

from __future__ import annotations

from collections import OrderedDict, deque

_KINDS = 4096
_RUNS = 4
NEGLIGIBLE = 32 << 20
"""Bytes. Who takes less waits for no memory."""


class MemoryHistory:
    """The peaks of the last few runs of each kind of job; of so many kinds, the last ones seen."""

    def __init__(self) -> None:
        self._peaks: OrderedDict[str, deque[int]] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether it knows of any that took much."""
        return bool(self._peaks)

    def note(self, kind: str, peak_bytes: int) -> None:
        """A job of this kind has taken so much."""
        peaks = self._peaks.pop(kind, None)
        if peaks is None:
            if peak_bytes < NEGLIGIBLE:
                return
            peaks = deque(maxlen=_RUNS)
        self._peaks[kind] = peaks
        peaks.append(peak_bytes)
        if len(self._peaks) > _KINDS:
            self._peaks.popitem(last=False)

    def expected(self, kind: str) -> int:
        """How much the next one will probably take, in bytes; 0 if that is little, or unknown."""
        peak = max(self._peaks.get(kind, ()), default=0)
        return peak if peak >= NEGLIGIBLE else 0
