"""A supervisor's socket in the meeting place, at which clients and visitors arrive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from compilepool.supervisor.links.listener import Listener
from compilepool.supervisor.links.loop import Loop
from compilepool.wire.channel import Channel, close_all
from compilepool.wire.messages import Message


class Entrance:
    """A listening socket, and its two files.

    Args:
        loop: the event loop.
        name: the pool's name in the directory.
        listener: the listening socket.
        lock: the descriptor of the locked file.
        directory: the descriptor of the directory that has both.
        on_packet: called with a connection and the messages of its first packet; takes over both.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        listener: int,
        lock: int,
        directory: int,
        on_packet: Callable[[Channel, list[Message]], None],
    ) -> None:
        self._lock = lock
        self._directory = directory
        # Somebody may remove the files. Those of these names are then another supervisor's.
        self._files = {name + ".sock": self._file(name + ".sock"), name + ".lock": os.fstat(lock)}
        self._listener = Listener(loop, listener, on_packet)

    @classmethod
    def of_private_pool(
        cls, loop: Loop, on_packet: Callable[[Channel, list[Message]], None]
    ) -> Entrance | None:
        """Make an entrance for those who look at a private pool.

        Returns:
            None if somebody who tidies up has just taken the new lock for one that was left.

        Raises:
            OSError, NoMeetingPlace: there is no place for it.
        """
        from compilepool.wire.meeting_place import MeetingPlace, new_private_name

        name = new_private_name()
        with MeetingPlace() as place:
            place.tidy()
            claim = place.claim(name)
            if claim is None:
                return None
            try:
                claim.listen()
                return cls(loop, name, *claim.keep(), on_packet)
            except OSError:
                claim.give_up()
                raise

    def close(self) -> None:
        """Let nobody in any more. Removes the files."""
        for name, own in self._files.items():
            found = self._file(name)
            if own is not None and found is not None and os.path.samestat(own, found):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)
        self._listener.close()
        close_all([self._lock, self._directory])

    def _file(self, name: str) -> os.stat_result | None:
        try:
            return os.lstat(name, dir_fd=self._directory)
        except OSError:
            return None
