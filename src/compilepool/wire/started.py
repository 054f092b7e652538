"""Which job a worker has started last, in the head of its crash file: it survives the worker.

A worker that is killed may die with a job that the kernel has just handed to it, but that it has
not begun: then the job is not to blame, and must run elsewhere.
"""

from __future__ import annotations

import os
import struct

_NUMBER = struct.Struct("<Q")

HEAD_SIZE = _NUMBER.size
"""Bytes at the start of a crash file that are not faulthandler's."""


def note_started(crash_fd: int, job: int) -> None:
    """In a worker: the job is about to run."""
    os.pwrite(crash_fd, _NUMBER.pack(job), 0)


def last_started(crash_fd: int) -> int:
    """In the supervisor: the number of the job that was started last; 0 if none was."""
    (job,) = _NUMBER.unpack(os.pread(crash_fd, HEAD_SIZE, 0).ljust(HEAD_SIZE, b"\0"))
    return int(job)
