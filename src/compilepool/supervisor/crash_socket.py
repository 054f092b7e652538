"""Where faulthandler in a worker writes to: it wakes the supervisor, and tells who has written."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct

from compilepool.wire.failure import CRASH_HEAD

_LIMIT = 32 * 1024  # bytes of one text; faulthandler itself stops at 100 threads of 100 frames
_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)

_SIGNALS = {
    b"Segmentation fault": signal.SIGSEGV,
    b"Bus error": signal.SIGBUS,
    b"Aborted": signal.SIGABRT,
    b"Floating": signal.SIGFPE,  # "point exception", or "-point exception"
    b"Illegal instruction": signal.SIGILL,
}
"""By what faulthandler calls them, `Modules/faulthandler.c` of CPython."""

_CRASH = re.compile(CRASH_HEAD.encode() + b": (" + b"|".join(_SIGNALS) + b")")


class CrashSocket:
    """The crash socket of one worker.

    Processes that the worker's jobs have forked may hold it as well: the kernel tells by whom each
    piece was written (SO_PASSCRED, unix(7)), and what is not by the worker is ignored.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ours.setblocking(False)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._texts: dict[int, bytes] = {}
        self._pid = 0

    @property
    def fd_of_worker(self) -> int:
        """The end that the worker gets."""
        return self._theirs.fileno()

    def fileno(self) -> int:
        return self._ours.fileno()

    def belongs_to(self, pid: int) -> None:
        """The worker exists. (It may have crashed already.)"""
        self._pid = pid

    def read(self) -> None:
        """Take in what was written."""
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        with contextlib.suppress(OSError):
            while True:
                data, ancillary, _, _ = self._ours.recvmsg(_LIMIT, space)
                if not data:
                    return
                for _, kind, credentials in ancillary:
                    if kind == socket.SCM_CREDENTIALS:
                        writer, _, _ = _CREDENTIALS.unpack(credentials[: _CREDENTIALS.size])
                        # Whoever is not known yet may be the worker.
                        if self._pid in (0, writer):
                            self._texts[writer] = (self._texts.get(writer, b"") + data)[:_LIMIT]

    @property
    def signal(self) -> signal.Signals | None:
        """The fatal signal that the worker got; None if none."""
        found = _CRASH.search(self._texts.get(self._pid, b""))
        return _SIGNALS[found[1]] if found else None

    def text(self) -> str:
        """What faulthandler has written in the worker, since `forget`."""
        return self._texts.get(self._pid, b"").decode(errors="replace")

    def forget(self) -> None:
        """Forget what was written until now."""
        self._texts.clear()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()
