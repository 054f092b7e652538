"""Makes the messages that ask a fork server to start a worker."""

from __future__ import annotations

import os
from collections.abc import Sequence

from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.rules.actions import WorkerId
from compilepool.wire.channel import close_all
from compilepool.wire.messages import Kind, Message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.worker_start import WorkerOrders


class StartRequests:
    """Makes the START_WORKER messages of one pool.

    Args:
        config: the pool's configuration.
        startup_fds: the descriptors that every worker starts with.
    """

    def __init__(self, config: PoolConfig, startup_fds: tuple[int, ...]) -> None:
        self._startup_fds = startup_fds
        self._max_memory = config.max_worker_memory or 0
        self._tells_files = config.is_shared
        self._pins = CpuPins(config.cpus, pin=config.pin_workers)
        self._idle_memory_of: WorkerId | None = None
        """The one worker that reports its idle memory. All workers take about the same."""

    def message(self, link: WorkerLink) -> Message:
        """The message for a worker. It owns copies of the descriptors.

        Raises:
            OSError: this process has too many open files.
        """
        if self._idle_memory_of is None:
            self._idle_memory_of = link.number
        fds: list[int] = []
        try:
            for fd in (*link.fds.flat(), *self._startup_fds):
                fds.append(os.dup(fd))
        except OSError:
            close_all(fds)
            raise
        is_asked = self._idle_memory_of == link.number
        cpus, number = self._pins.cpus_of(link.number), link.number
        orders = WorkerOrders(cpus, is_asked, self._max_memory, number, self._tells_files)
        return Message(Kind.START_WORKER, link.number, body=orders.encode(), fds=tuple(fds))

    def forget(self, link: WorkerLink) -> None:
        """The worker is dead, or could not be started."""
        self._pins.free(link.number)
        if self._idle_memory_of == link.number and not link.is_ready:
            self._idle_memory_of = None  # it has reported nothing, so ask another one


class CpuPins:
    """Divides CPUs among workers.

    Args:
        cpus: the CPUs for workers; empty means all CPUs, without pinning.
        pin: whether each worker gets only one CPU: the one that the fewest other workers have.
    """

    def __init__(self, cpus: Sequence[int], *, pin: bool) -> None:
        self._cpus = list(cpus)
        self._pin = pin
        self._of_worker: dict[WorkerId, int] = {}

    def cpus_of(self, worker: WorkerId) -> tuple[int, ...]:
        """The CPUs that a worker may use; empty means all."""
        if not self._pin or not self._cpus:
            return tuple(self._cpus)
        if worker not in self._of_worker:
            taken = list(self._of_worker.values())
            self._of_worker[worker] = min(self._cpus, key=taken.count)
        return (self._of_worker[worker],)

    def free(self, worker: WorkerId) -> None:
        """The worker is dead."""
        self._of_worker.pop(worker, None)
