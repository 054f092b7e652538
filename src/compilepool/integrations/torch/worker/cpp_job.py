"""The job that compiles a C++ kernel in a worker."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import compilepool

_PART = ".part"


def compile_cpp(lock_path: str, builders: Sequence[Any]) -> None:
    """Run g++, unless the files are there already. Files are there as a whole, or not at all.

    Args:
        lock_path: the first argument of `_worker_compile_cpp` (torch/_inductor/codecache.py).
        builders: its second argument: the `CppBuilder`s that run g++.
    """
    from torch._inductor.codecache import _worker_compile_cpp

    with _files_written_whole():
        _worker_compile_cpp(lock_path, builders)


@contextlib.contextmanager
def _files_written_whole() -> Iterator[None]:
    """Within the block, g++ writes to another file, which then gets the name that is wanted.

    A job may be killed at any time. Half a file would stay, and Inductor would load it ever after.
    The other file has the same name for every job, since `_worker_compile_cpp` holds a lock.
    """
    from torch._inductor import cpp_builder

    original = getattr(cpp_builder, "run_compile_cmd", None)
    if original is None:
        yield
        return

    def run_and_rename(command_line: str, cwd: str) -> None:
        compilepool.report_phase("g++")
        command = shlex.split(command_line)
        if "-o" not in command:
            original(command_line, cwd)
            return
        output = command.index("-o") + 1
        target = os.path.join(cwd, command[output])
        command[output] = target + _PART
        original(shlex.join(command), cwd)
        os.rename(target + _PART, target)

    cpp_builder.run_compile_cmd = run_and_rename
    try:
        yield
    finally:
        cpp_builder.run_compile_cmd = original
