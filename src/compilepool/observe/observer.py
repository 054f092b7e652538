"""Interfaces: an `Observer` hears of each job of a pool, a `Consumer` gets samples of the pool."""

from __future__ import annotations

from collections.abc import Callable

from compilepool.light_typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from compilepool.observe.record import JobRecord
    from compilepool.observe.stats import Memory


class RunningJob(NamedTuple):
    """A job that a worker runs at the moment.

    Attributes:
        id: the job's number, unique within the pool.
        name: the job's name.
        seconds: the time since the job's start.
        phase: the last phase that the job passed to `report_phase`; "" if it reported none.
    """

    id: int
    name: str
    seconds: float
    phase: str


class Sample(NamedTuple):
    """The state of a pool at one moment.

    Attributes:
        time: the moment, by `time.monotonic()`.
        unfinished: the number of jobs that have not ended.
        queued: the number of jobs that wait for a worker.
        running: the jobs that workers run, the oldest first.
        memory: a function that reads the memory of the pool's processes; slow.
        is_short_of_memory: whether jobs wait for memory, though there is room for a worker.
    """

    time: float
    unfinished: int
    queued: int
    running: list[RunningJob]
    memory: Callable[[], Memory]
    is_short_of_memory: bool = False


class Observer(Protocol):
    """Hears of every job of one pool, on any thread. Its methods must neither raise nor wait."""

    def submitted(self, id: int, name: str) -> None:
        """A job was submitted.

        Args:
            id: the job's number, unique within the pool.
            name: the job's name.
        """

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """A job has ended. Whoever waits for its future is woken after this call.

        Args:
            id: the job's number, unique within the pool.
            name: the job's name.
            record: the job's record.
            error: the exception that the future raises; None if the job returned or was cancelled.
            cancelled: whether the job was cancelled.
        """

    def abandon(self) -> None:
        """This process is a fork of the pool's owner. Drop everything, and leave the owner's files
        alone.
        """


class Consumer(Protocol):
    """Gets samples of a pool. Only one thread at a time calls it."""

    def sample(self, sample: Sample) -> None:
        """Take in a sample. The last sample before a pause has no unfinished job."""

    def close(self) -> None:
        """The pool has ended. May be called twice."""

    def abandon(self) -> None:
        """This process is a fork of the pool's owner. Drop everything, and leave the owner's files
        alone.
        """
