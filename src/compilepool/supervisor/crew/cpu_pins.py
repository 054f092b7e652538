"""Which CPUs each worker may use: pure."""

from __future__ import annotations

from collections.abc import Sequence


class CpuPins:
    """Shares CPUs out among workers.

    Args:
        cpus: those that there are for them; empty: all, and nobody is pinned.
        pin: whether each worker gets one only, the one that the fewest others have.
    """

    def __init__(self, cpus: Sequence[int], *, pin: bool) -> None:
        self._cpus = list(cpus)
        self._pin = pin
        self._of_worker: dict[int, int] = {}

    def cpus_of(self, worker: int) -> tuple[int, ...]:
        """Those that a worker may use; empty: all."""
        if not self._pin or not self._cpus:
            return tuple(self._cpus)
        if worker not in self._of_worker:
            taken = list(self._of_worker.values())
            self._of_worker[worker] = min(self._cpus, key=taken.count)
        return (self._of_worker[worker],)

    def free(self, worker: int) -> None:
        """The worker is dead."""
        self._of_worker.pop(worker, None)
