"""Descriptors that may not be ours any more, because some programs close all that they find.

The number of such a descriptor soon belongs to another file: one that the program has opened, or
one of our own. Whoever closes it again closes that. So whoever keeps a descriptor for long in the
user's process remembers what it is open on.
"""

from __future__ import annotations

import contextlib
import os

Opened = tuple[int, int]
"""What a descriptor is open on: device and inode. Before Linux 6.9, all pidfds share one."""


_FIRST_FREE = 3


def away_from_output(fd: int) -> int:
    """Another number for a new descriptor, if it has one of the three that stand for the terminal.

    It gets such a number if the program has closed its output. The program may still write there,
    and log, for example. Its text would then be in the file behind this descriptor.

    Args:
        fd: the descriptor; closed if it gets another number.

    Returns:
        The descriptor, which is close-on-exec if it has another number.

    Raises:
        OSError: too many files are open; the descriptor is closed.
    """
    if fd >= _FIRST_FREE:
        return fd
    import fcntl  # not every platform has it, and this module can be imported on any

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    finally:
        os.close(fd)


def opened_by(fd: int) -> Opened:
    """What a descriptor is open on.

    Raises:
        OSError: it is closed.
    """
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def is_open_on(fd: int, opened: Opened) -> bool:
    """Whether a descriptor is still open on what it was opened on."""
    try:
        return opened_by(fd) == opened
    except OSError:
        return False


def close_if_ours(fd: int, opened: Opened) -> None:
    """Close a descriptor, unless its number belongs to something else by now."""
    if is_open_on(fd, opened):
        with contextlib.suppress(OSError):
            os.close(fd)
