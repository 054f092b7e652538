"""The results of runs that have ended, for jobs with the same flight that come later."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict

from compilepool.light_typing import NamedTuple
from compilepool.supervisor.runs import Waiter, duplicates
from compilepool.wire.channel import close_all
from compilepool.wire.messages import REUSED, Form, Kind, Message, Outcome
from compilepool.wire.payloads import lacks_descriptor

MAX_BYTES = 256 << 20
"""The most bytes of all kept results together."""

MAX_FDS = 1024
"""The most descriptors of all kept results together."""

_SHARE = 8
"""They have one in so many of the process's descriptors. Workers and clients need the others."""

_ENTRY = 1024  # bytes; about what the entry itself takes


class _Kept(NamedTuple):
    form: Form
    body: bytes
    fds: tuple[int, ...]
    log: bytes | None
    size: int


class KeptResults:
    """The results that were kept or reused last.

    Args:
        max_bytes: the most bytes of all results together, with the output of their runs.
        max_fds: the most descriptors of all results together. Only large results have one.
            None: as many as leave enough for all else.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, max_fds: int | None = None) -> None:
        self._max_bytes = max_bytes
        if max_fds is None:
            max_fds = min(MAX_FDS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _SHARE)
        self._max_fds = max_fds
        self._results: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._fds = 0

    def __len__(self) -> int:
        return len(self._results)

    def keep(self, flight: str, result: Message, log: bytes | None) -> None:
        """Keep a result, if there is room for it and a descriptor is left.

        Args:
            flight: the flight of the run.
            result: the RESULT. The caller still owns its descriptor, whose file is sealed.
            log: the end of the run's output; None if there was none.
        """
        if lacks_descriptor(result):
            return
        size = _ENTRY + len(result.body) + len(log or b"")
        size += sum(os.fstat(fd).st_size for fd in result.fds)
        if size > self._max_bytes:
            return
        fds = duplicates(result.fds)
        if len(fds) < len(result.fds):
            return
        if flight in self._results:
            self._drop(flight)
        self._results[flight] = _Kept(result.form, result.body, fds, log, size)
        self._bytes += size
        self._fds += len(fds)
        while self._bytes > self._max_bytes or self._fds > self._max_fds:
            self._drop(next(iter(self._results)))

    def answer(self, waiter: Waiter, flight: str) -> bool:
        """Send a job the result that was kept for its flight.

        Returns:
            False if there is none, or no descriptor for another copy of it.
        """
        kept = self._results.get(flight)
        if kept is None:
            return False
        fds = duplicates(kept.fds)
        if len(fds) < len(kept.fds):
            return False
        self._results.move_to_end(flight)
        client, id = waiter
        if kept.log is not None:
            client.send(Message(Kind.LOG, id, body=kept.log))
        flag = Outcome.RETURNED | REUSED
        client.send(Message(Kind.RESULT, id, flag, kept.form, kept.body, fds))
        return True

    def clear(self) -> None:
        """Drop all results."""
        while self._results:
            self._drop(next(iter(self._results)))

    def _drop(self, flight: str) -> None:
        kept = self._results.pop(flight)
        self._bytes -= kept.size
        self._fds -= len(kept.fds)
        close_all(kept.fds)
