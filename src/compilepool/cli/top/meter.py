"""Measures what processes take, from `/proc`. The processes notice nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping

from compilepool.cli.top.sight import Used
from compilepool.linux.proc import descendants, stat, statm


class Meter:
    """Measures again and again. The processes are those of pools, with all below them."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, float], tuple[float, float]] = {}

    def read(self, alone: Iterable[int], trees: Iterable[int]) -> Mapping[int, Used]:
        """What processes take now.

        Args:
            alone: the PIDs of processes that are measured without those below them.
            trees: the PIDs of processes that are measured with them.

        Returns:
            By PID; a process that is gone is left out.
        """
        found: dict[int, Used] = {}
        seen: dict[tuple[int, float], tuple[float, float]] = {}
        for pid, is_tree in [*((pid, False) for pid in alone), *((pid, True) for pid in trees)]:
            with contextlib.suppress(OSError, ValueError, IndexError):
                found[pid] = self._read_one(pid, is_tree, seen)
        self._before = seen
        return found

    def _read_one(
        self, pid: int, is_tree: bool, seen: dict[tuple[int, float], tuple[float, float]]
    ) -> Used:
        own = stat(pid)
        now = time.monotonic()
        cpu_s, resident = own.cpu_s, statm(pid).resident
        if is_tree:
            cpu_s += own.waited_cpu_s
            for child, _ in descendants(pid):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    below = stat(child)
                    cpu_s += below.cpu_s + below.waited_cpu_s
                    resident += statm(child).resident
        key = (pid, own.start_s)  # another process may get the PID
        seen[key] = (now, cpu_s)
        if key not in self._before:
            return Used(None, resident)
        then, cpu_then = self._before[key]
        # A child that ended without being waited for takes its time with it.
        return Used(max(0.0, cpu_s - cpu_then) / max(now - then, 1e-3), resident)
