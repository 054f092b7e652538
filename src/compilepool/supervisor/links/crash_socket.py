"""Where faulthandler in a worker writes to: it wakes the supervisor, and tells who has written."""

from __future__ import annotations

import _socket as socket  # see `wire.channel`
import re
import signal
import struct

from compilepool.wire.failure import CRASH_HEAD

_READ_SIZE = 64 * 1024
_LIMIT = 4 * 1024 * 1024
"""Bytes of one text. faulthandler stops at 100 threads of 100 frames; the crashed one may be the
last of them."""

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)
_HEAD = CRASH_HEAD.encode()

_SIGNALS = {
    b"Segmentation fault": signal.SIGSEGV,
    b"Bus error": signal.SIGBUS,
    b"Aborted": signal.SIGABRT,
    b"Floating": signal.SIGFPE,  # "point exception", or "-point exception"
    b"Illegal instruction": signal.SIGILL,
}
"""By what faulthandler calls them, `Modules/faulthandler.c` of CPython."""

_CRASH = re.compile(_HEAD + b": (" + b"|".join(_SIGNALS) + b")")


class CrashSocket:
    """The crash socket of one worker.

    Processes that jobs have forked may hold it as well: the kernel tells by whom each piece was
    written (SO_PASSCRED, unix(7)).
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
        """The worker exists, and has its end. (It may have crashed already.)"""
        self._pid = pid
        self._theirs.close()

    def read(self) -> bool:
        """Take in what was written; False if nobody is left who could write."""
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
        """The fatal signal that the worker got; None if none."""
        found = _CRASH.search(self._texts.get(self._pid, b""))
        return _SIGNALS[found[1]] if found else None

    def crash(self) -> str:
        """What faulthandler has written of the worker's crash, the thread that crashed first.

        faulthandler begins with the youngest.
        """
        text = bytes(self._texts.get(self._pid, b""))
        _, found, crash = text.partition(_HEAD)
        head, *threads = (found + crash).decode(errors="replace").split("\n\n")
        threads.sort(key=lambda thread: not thread.startswith("Current thread"))
        return "\n\n".join([head, *threads])

    def dump(self) -> str:
        """What faulthandler has written without a crash, since `forget_dump`."""
        return self._texts.get(self._pid, b"").partition(_HEAD)[0].decode(errors="replace")

    def forget_dump(self) -> None:
        """Forget what was written until now, but for a crash."""
        text = self._texts.get(self._pid)
        if text is not None and (crash := _crash_at(text)):
            del text[:crash]

    def crashed_others(self) -> list[int]:
        """The pids of other processes that have written of a crash of theirs, each told once."""
        if self._pid == 0:
            return []
        others = [pid for pid, text in self._texts.items() if pid != self._pid and _HEAD in text]
        for pid in others:
            del self._texts[pid]
        return others

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


def _crash_at(text: bytearray) -> int:
    """Where a crash begins, of which only the first letters may be there yet; else the end."""
    found = text.find(_HEAD)
    if found >= 0:
        return found
    return next(
        at
        for at in range(max(0, len(text) - len(_HEAD)), len(text) + 1)
        if _HEAD.startswith(text[at:])
    )
