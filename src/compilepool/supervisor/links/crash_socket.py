"""The socket that faulthandler in a worker writes to. Writing to it wakes the supervisor."""

from __future__ import annotations

import _socket as socket  # see `wire.channel`
import signal
import struct

from compilepool.wire.python_stack import crash_begins, crash_text, fatal_signal, tells_of_crash

_READ_SIZE = 64 * 1024
_LIMIT = 4 * 1024 * 1024
"""Bytes that are kept of what one process writes. faulthandler writes at most 100 threads of 100
frames, and the thread that crashed may be the last one."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


class CrashSocket:
    """The crash socket of one worker.

    Processes that the worker's runs have forked may hold the socket as well. The kernel says which
    process wrote each piece (SO_PASSCRED, unix(7)).
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._texts: dict[int, bytearray] = {}
        self._pid = 0

    @property
    def fd_of_worker(self) -> int:
        """The descriptor of the worker's end."""
        return self._theirs.fileno()

    def fileno(self) -> int:
        return self._ours.fileno()

    def belongs_to(self, pid: int) -> None:
        """Note the worker's PID, and close its end here. The worker may already have crashed."""
        self._pid = pid
        self._theirs.close()

    def read(self) -> bool:
        """Read all that was written. Returns False if no process is left that could write."""
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
        """faulthandler's report of the worker's crash. The thread that crashed comes first."""
        return crash_text(bytes(self._of_worker))

    def dump(self) -> str:
        """The Python stacks that faulthandler has written on request since `forget_dump`."""
        text = self._of_worker
        return text[: crash_begins(text)].decode(errors="replace")

    def forget_dump(self) -> None:
        """Forget the stacks that were written on request until now. A crash is kept."""
        text = self._of_worker
        del text[: crash_begins(text)]

    def crashed_others(self) -> list[int]:
        """The PIDs of other processes that have reported their crash. Each is returned once."""
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
