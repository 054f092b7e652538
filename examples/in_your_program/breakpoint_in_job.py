"""Stop in a job at `breakpoint()`, and debug it with pdb at this terminal.

Run at a terminal: python examples/in_your_program/breakpoint_in_job.py
"""

import os
import pdb
import sys

from compilepool import CompilePool


def debug_at(terminal: str) -> None:
    """Have `breakpoint()` in this worker use a terminal, because a worker's stdin is /dev/null."""
    keys, screen = open(terminal), open(terminal, "w")  # noqa: SIM115 - for the worker's life

    def hook() -> None:
        pdb.Pdb(stdin=keys, stdout=screen).set_trace(sys._getframe(1))

    sys.breakpointhook = hook


def compile_kernel(size: int) -> int:
    registers = size * 4
    breakpoint()
    return registers


# One worker: two jobs at one terminal would take each other's keys.
with CompilePool(1, initializer=debug_at, initargs=[os.ttyname(0)]) as pool:
    print("result:", pool.submit(compile_kernel, 32).result())
