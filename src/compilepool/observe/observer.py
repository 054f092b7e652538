"""Who is told what happens to jobs."""

from __future__ import annotations

from compilepool.wire.light_typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from compilepool.client.record import JobRecord


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
