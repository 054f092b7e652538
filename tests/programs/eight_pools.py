"""Eight pools in a cgroup that has memory for a few of their jobs. Argument: the cgroup.

Writes how many jobs have ended well.
"""

import contextlib
import os
import select
import sys
from pathlib import Path

from compilepool import CompilePool

GROUP = Path(sys.argv[1])
JOBS = 6
SIZE = 100 << 20


def take() -> int:
    taken = b"x" * SIZE
    select.select([], [], [], 0.05)
    return len(taken)


def main() -> None:
    (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(CompilePool(2)) for _ in range(8)]
        jobs = [
            pool.options(expected_memory=SIZE, retries=50).submit(take)
            for _ in range(JOBS)
            for pool in pools
        ]
        print(sum(job.result() == SIZE for job in jobs), flush=True)
    with contextlib.suppress(OSError):
        (GROUP.parent / "cgroup.procs").write_text(str(os.getpid()))


if __name__ == "__main__":
    main()
