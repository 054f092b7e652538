"""What a program reports, in a file that it has mapped: that needs no descriptor and no thread."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import NamedTuple

_SLOT = 320
_SLOTS_EACH = 2000
_REGIONS = 32
_SIZE = _SLOT * _SLOTS_EACH * _REGIONS


class Entry(NamedTuple):
    """One thing that a program has reported.

    Attributes:
        tag: what it is about: "job", "own" (a process of its own), "fault", "stage".
        name: the job's kind, the pid, the fault, the stage.
        state: of a job: "submitting", "submitted", or how it has ended.
        detail: more of that.
    """

    tag: str
    name: str
    state: str = ""
    detail: str = ""


class Report:
    """The report of this process; a forked child continues in a region of its own.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, _SIZE)
        # Not the module mmap: it keeps a descriptor, and closes that number at the end.
        self._address: int = libc.mmap(
            None, _SIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0
        )
        os.close(fd)
        self._move = ctypes.memmove
        self._slots = iter(range(_SLOTS_EACH))
        self._regions = iter(range(1, _REGIONS))

    def write(self, entry: Entry, slot: int | None = None) -> int:
        """Write an entry, into a slot of its own or over another one; returns the slot."""
        if slot is None:
            slot = next(self._slots)
        text = "\t".join(part.replace("\t", " ").replace("\0", " ") for part in entry)
        data = text.encode("utf-8", "backslashreplace")[: _SLOT - 1].ljust(_SLOT, b"\0")
        self._move(self._address + slot * _SLOT, data, _SLOT)
        return slot

    def next_region(self) -> int:
        """The region of the next child, chosen before the fork."""
        return next(self._regions)

    def move_to(self, region: int) -> None:
        """In a child: write there."""
        self._slots = iter(range(region * _SLOTS_EACH, (region + 1) * _SLOTS_EACH))


def read_report(path: Path) -> list[Entry]:
    """All entries of a report."""
    data = path.read_bytes() if path.exists() else b""
    slots = (data[start : start + _SLOT] for start in range(0, len(data), _SLOT))
    texts = (slot.rstrip(b"\0").decode("utf-8", "replace") for slot in slots)
    return [Entry(*text.split("\t")) for text in texts if text]
