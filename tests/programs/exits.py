"""A client that exits, in the way its first argument names, while a job runs and another waits.

Arguments: way, start method. Exits as soon as it reads a line.
"""

import os
import signal
import subprocess
import sys
from typing import Literal, cast

from compilepool import CompileFuture, CompilePool


def run_on() -> None:
    subprocess.Popen(["sleep", "1000"])
    os.write(1, b"ready\n")
    signal.pause()


def submit(pool: CompilePool) -> list[CompileFuture[None]]:
    futures = [pool.submit(run_on) for _ in range(2)]
    sys.stdin.readline()
    return futures


def leave(way: str, pool: CompilePool) -> None:
    if way == "end":
        kept.extend(submit(pool))
    elif way == "end without futures":
        submit(pool)
    elif way == "sys.exit in the block":
        with pool:
            submit(pool)
            sys.exit(3)
    elif way == "sys.exit in another block":
        with subprocess.Popen(["true"]):
            submit(pool)
            sys.exit(3)
    elif way == "exception":
        submit(pool)
        raise LookupError("mine")
    elif way == "os._exit":
        submit(pool)
        os._exit(3)
    else:
        raise ValueError(way)


kept: list[CompileFuture[None]] = []
start_method = cast(Literal["fork", "spawn"], sys.argv[2])
the_pool = CompilePool(1, start_method=start_method, capture=False)
leave(sys.argv[1], the_pool)
