"""`be_a_worker`: what makes it right that several processes fill one cache of Numba's.

It changes two things in Numba, in this process alone.

**Numbers of functions.** Numba numbers the functions that a process compiles, and the number is
part of the symbol's name (numba/core/bytecode.py, `FunctionIdentity._unique_ids`). Processes that
were forked from one go on with the same numbers. So two closures of the same name, which two
workers have compiled, may have the same symbol. A program that loads both from the cache calls one
of them for both, or dies in LLVM (numba#10486). Here each process starts at a number at random.

**Writing.** Numba reads the index of a function, adds an entry, writes it, and then writes the code
(numba/core/caching.py, `IndexDataCacheFile.save`). Two processes that do so at once lose an entry,
or write different code under one name. One that is killed in between leaves an entry that leads to
old code. Here the writers take turns, and the code is there before its entry.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from compilepool.light_typing import Any

LOCK = ".compilepool.lock"
"""The file beside the cache that writers lock. It stays: deleting it would need a lock, too."""

_is_done = False


def be_a_worker() -> None:
    """Make this process, and those that are forked from it, fit to fill a cache with others."""
    global _is_done  # noqa: PLW0603
    if _is_done:
        return
    from numba.core.caching import IndexDataCacheFile

    IndexDataCacheFile.save = save
    os.register_at_fork(after_in_child=_number_at_random)
    _number_at_random()
    _is_done = True


def _number_at_random() -> None:
    from numba.core.bytecode import FunctionIdentity

    FunctionIdentity._unique_ids = itertools.count(int.from_bytes(os.urandom(7)))


def save(file: Any, key: Hashable, data: object) -> None:
    """Replaces `IndexDataCacheFile.save`: save the code of a function for a key.

    Whoever reads meanwhile finds the old state or the new one, also if this process is killed.
    """
    with _turn(file._cache_path):
        index = file._load_index()
        if not index:
            file._save_index({})  # one of older source, if any, must not lead to the new code
        name = index.get(key)
        if name is None:
            taken = set(index.values())
            names = map(file._data_name, itertools.count(1))
            name = next(each for each in names if each not in taken)
        file._save_data(name, data)
        if key not in index:
            file._save_index({**index, key: name})


@contextmanager
def _turn(folder: str) -> Iterator[None]:
    """Wait until no other worker of this user, of whatever pool, writes into this folder."""
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        fcntl.flock(lock, fcntl.LOCK_UN)  # also for a child that has the descriptor
    finally:
        os.close(lock)
