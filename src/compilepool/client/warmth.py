"""Whether a pool's workers have started, and who waits for that."""

from __future__ import annotations

from concurrent.futures import Future


class Warmth:
    """What is known of it. Called under the session's lock, but for `failed`."""

    def __init__(self) -> None:
        self.is_warm = False
        self._told: Future[bool] | None = None

    def expect(self) -> Future[bool]:
        """What is told next: True, or why that cannot be; False if the supervisor is gone.

        Cancelled if they are not wanted any more.
        """
        if self._told is None:
            self._told = Future()
        return self._told

    def told(self, *, is_warm: bool) -> None:
        """The supervisor has told."""
        self.is_warm = is_warm
        if is_warm and (told := self._take()):
            told.set_result(True)

    def failed(self, error: BaseException) -> None:
        """Workers cannot be had."""
        if told := self._take():
            told.set_exception(error)

    def quiesced(self) -> None:
        """Nobody wants workers any more."""
        if told := self._take():
            told.cancel()

    def lost(self) -> None:
        """There is no supervisor any more."""
        self.is_warm = False
        if told := self._take():
            told.set_result(False)

    def _take(self) -> Future[bool] | None:
        told, self._told = self._told, None
        return told
