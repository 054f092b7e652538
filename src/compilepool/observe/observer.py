"""Who is told what happens to jobs, and how a pool is at one moment."""

from __future__ import annotations

from collections.abc import Callable

from compilepool.light_typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from compilepool.client.record import JobRecord
    from compilepool.observe.stats import Memory


class RunningJob(NamedTuple):
    """A job that runs.

    Attributes:
        id: its number, unique within the pool.
        name: its name.
        seconds: for how long it has run.
        phase: what it calls what it does; empty if nothing.
    """

    id: int
    name: str
    seconds: float
    phase: str


class Sample(NamedTuple):
    """A pool.

    Attributes:
        time: when it was looked at, by `time.monotonic()`.
        unfinished: how many jobs have not ended.
        queued: how many of them wait.
        running: those that run, the oldest first.
        memory: tells what its processes take; slow.
    """

    time: float
    unfinished: int
    queued: int
    running: list[RunningJob]
    memory: Callable[[], Memory]


class Observer(Protocol):
    """Is told of all jobs of one pool, by any thread. Must neither raise nor wait."""

    def submitted(self, id: int, name: str) -> None:
        """There is a new job."""

    def ended(
        self, id: int, name: str, record: JobRecord, error: BaseException | None, *, cancelled: bool
    ) -> None:
        """A job has ended; whoever waits for it is told next.

        Args:
            id: its number, unique within the pool.
            name: its name.
            record: what is known of it.
            error: the exception that its future gets; None if it has a result, or was cancelled.
            cancelled: whether it was cancelled.
        """

    def abandon(self) -> None:
        """This is a child that the user has forked: let go of everything, and disturb nothing."""


class Consumer(Protocol):
    """Who is told how things are. Only ever called by one thread at a time."""

    def sample(self, look: Sample) -> None:
        """How things are. The last look before a rest finds no unfinished job."""

    def close(self) -> None:
        """The pool has ended. May be called twice."""

    def abandon(self) -> None:
        """As `Observer.abandon`."""
