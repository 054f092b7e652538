"""The socket that faulthandler in a worker writes to, and so wakes the supervisor."""

from __future__ import annotations

import _socket as socket  # see `wire.channel`
import signal
import struct

from compilepool.wire.python_stack import crash_begins, crash_text, fatal_signal, tells_of_crash

_READ_SIZE = 64 * 1024
_LIMIT = 4 * 1024 * 1024
"""Bytes of one text. faulthandler writes at most 100 threads of 100 frames, and the thread that
crashed may be the last of them."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


class CrashSocket:
    """The crash socket of one worker.

    Processes that jobs have forked may hold it as well. The kernel says who wrote each piece
    (SO_PASSCRED, unix(7)).
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._texts: dict[int, bytearray] = {}
        self._pid = 0

    @property
    def fd_of_worker(self) -> int:
        """The end that the worker gets."""
        return self._theirs.fileno()

    def fileno(self) -> int:
        return self._ours.fileno()

    def belongs_to(self, pid: int) -> None:
        """Note that the worker exists and has its end. It may already have crashed."""
        self._pid = pid
        self._theirs.close()

    def read(self) -> bool:
        """Take in what was written. Returns False if nobody is left who could write."""
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        while True:
            try:
                data, ancillary, _, _ = self._ours.recvmsg(_READ_SIZE, space)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            for _, kind, credentials in ancillary:
                if kind == socket.SCM_CREDENTIALS:
                    writer, _, _ = _CREDENTIALS.unpack(credentials[: _CREDENTIALS.size])
                    text = self._texts.setdefault(writer, bytearray())
                    text += data[: _LIMIT - len(text)]

    @property
    def signal(self) -> signal.Signals | None:
        """The fatal signal that the worker got; None if it got none."""
        return fatal_signal(self._of_worker)

    def crash(self) -> str:
        """What faulthandler has written of the worker's crash, the thread that crashed first."""
        return crash_text(bytes(self._of_worker))

    def dump(self) -> str:
        """What faulthandler has written without a crash, since `forget_dump`."""
        text = self._of_worker
        return text[: crash_begins(text)].decode(errors="replace")

    def forget_dump(self) -> None:
        """Forget what was written until now, except for a crash."""
        text = self._of_worker
        del text[: crash_begins(text)]

    def crashed_others(self) -> list[int]:
        """The pids of other processes that have written of their own crash; each is told once."""
        if self._pid == 0:
            return []
        others = [
            pid for pid, text in self._texts.items() if pid != self._pid and tells_of_crash(text)
        ]
        for pid in others:
            del self._texts[pid]
        return others

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()

    @property
    def _of_worker(self) -> bytearray:
        return self._texts.get(self._pid, bytearray())
