"""A client in a terminal, waiting for jobs when Ctrl-C is pressed there.

Arguments: start method, "busy" or "starting": whether jobs must run first.
"""

import fcntl
import os
import subprocess
import sys
import termios
from concurrent.futures import wait
from typing import Literal, cast

from compilepool import CompilePool


def in_python() -> None:
    os.write(1, b"ready\n")
    while True:
        pass


def in_a_compiler() -> None:
    subprocess.run(["sh", "-c", "echo ready; sleep 1000; echo survived"], check=True)


def main() -> None:
    # The terminal is its standard input; it leads its session already.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    start_method = cast(Literal["fork", "spawn"], sys.argv[1])
    with CompilePool(2, start_method=start_method, capture=False) as pool:
        futures = [pool.submit(in_python), pool.submit(in_a_compiler), pool.submit(in_python)]
        if sys.argv[2] == "starting":
            os.write(1, b"starting\n")
        # Not in one go: a signal that comes just before the system call is seen after it only.
        while wait(futures, timeout=0.1).not_done:
            pass


main()
