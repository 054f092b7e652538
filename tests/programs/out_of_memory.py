"""A program that may use little memory, with a job that wants more. Argument: its cgroup.

Writes what the job's error says.
"""

import contextlib
import os
import sys
from pathlib import Path

from compilepool import CompilePool

GROUP = Path(sys.argv[1])


def eat() -> int:
    return len(bytearray(b"x" * (1 << 30)))


def main() -> None:
    (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    with CompilePool(1) as pool:
        print(pool.options(name="greedy").submit(eat).exception(), flush=True)
        assert pool.submit(abs, -1).result() == 1
    with contextlib.suppress(OSError):
        (GROUP.parent / "cgroup.procs").write_text(str(os.getpid()))


if __name__ == "__main__":
    main()
