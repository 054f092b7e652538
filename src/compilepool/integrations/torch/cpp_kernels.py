"""Tells jobs that compile C++, and finds the names of their kernels.

Such a job is a call of `_worker_compile_cpp` (torch/_inductor/codecache.py), with the path of a
lock and with objects that run g++. Its results are files.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

_DEFINITION = re.compile(r"(\w+) = async_compile\.cpp")
_MAX_DEPTH = 12
"""The most frames between the module that Inductor has generated and this one."""


def is_cpp_job(function: Callable[..., Any]) -> bool:
    """Whether a job that calls this function compiles C++."""
    return getattr(function, "__name__", "") == "_worker_compile_cpp"


def cpp_kernel_name(args: Sequence[Any]) -> str:
    """Return the name of the C++ kernel that the calling thread submits.

    Only the module that Inductor has generated knows it, and this thread runs that module: `NAME =
    async_compile.cpp_pybinding(...)`. Otherwise the name is made of that of the kernel's files.

    Args:
        args: the arguments of the job.
    """
    frame = sys._getframe(1)
    for _ in range(_MAX_DEPTH):
        if frame.f_code.co_name == "<module>":
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if found := _DEFINITION.match(line):
                return found[1]
        if frame.f_back is None:
            break
        frame = frame.f_back
    return f"cpp_{os.path.basename(str(args[0])).partition('.')[0]}"
