"""A client whose jobs run on and on. It does what lines on its stdin tell it.

Arguments: start method, kind of job, how many. The pool has one worker more than there are jobs.
It writes the pid of a bystander first: a child of its own that the pool must leave alone. Each job
writes `ready INDEX PID`, as often as it is run.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal, cast

from compilepool import CompilePool


def say(text: str) -> None:
    # One write, so that lines of several processes do not mix.
    os.write(1, f"{text}\n".encode())


def family(index: int) -> None:
    """Have children, grandchildren, a child in another session, and a daemon."""
    script = "sleep 1000 & sleep 1000 & echo up; wait"
    parents = [
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE),
        subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True),
        subprocess.Popen(["sh", "-c", f"setsid sh -c '{script}' &"], stdout=subprocess.PIPE),
    ]
    for parent in parents:
        assert parent.stdout is not None
        parent.stdout.readline()
    parents[-1].wait()  # the daemon's parent; from now on the daemon is an orphan
    say(f"ready {index} {os.getpid()}")
    signal.pause()


def deaf(index: int) -> None:
    """Block all signals, and have a child that inherits that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    subprocess.Popen(["sleep", "1000"])
    say(f"ready {index} {os.getpid()}")
    signal.pause()


def holds_gil(index: int) -> None:
    """Sleep in C code that does not release the GIL: no Python code can run in this process."""
    subprocess.Popen(["sleep", "1000"])
    say(f"ready {index} {os.getpid()}")
    ctypes.PyDLL(None).sleep(1000)


def restless(index: int) -> None:
    """Have a descendant that is another process all the time: it forks, and its parent exits."""
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork() > 0:
                os._exit(0)
    say(f"ready {index} {os.getpid()}")
    signal.pause()


JOBS: dict[str, Callable[[int], None]] = {
    "family": family,
    "deaf": deaf,
    "holds_gil": holds_gil,
    "restless": restless,
}


def main() -> None:
    start_method = cast(Literal["fork", "spawn"], sys.argv[1])
    job, count = JOBS[sys.argv[2]], int(sys.argv[3])
    # Without our streams, of which tests await the end.
    null = subprocess.DEVNULL
    bystander = subprocess.Popen(["sleep", "1000"], stdin=null, stdout=null, stderr=null)
    say(f"bystander {bystander.pid}")
    pool = CompilePool(max_workers=count + 1, start_method=start_method, capture=False)
    futures = [pool.submit(job, index) for index in range(count)]
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "work":
            say(f"worked {pool.submit(os.getpid).result()}")
        elif command == "outcome":
            error = futures[int(arguments[0])].exception()
            say(f"outcome {type(error).__name__}")
        elif command == "fork":
            say(f"forked {fork(os.fork)}")
        elif command == "raw_fork":
            # As C code forks: no hook of Python's runs, so all descriptors stay open.
            say(f"forked {fork(ctypes.PyDLL(None).fork)}")
        elif command == "cancel":
            refused = [future for future in futures if not future.cancel()]
            say(f"cancelled {not refused}")
        elif command == "shutdown":
            pool.shutdown()
            say("shut down")
        elif command == "exit":
            break


def fork(how: Callable[[], Any]) -> int:
    """Fork a child that does nothing, with copies of all descriptors but the standard streams."""
    pid = int(how())
    if pid == 0:
        for fd in (0, 1, 2):
            os.close(fd)
        while True:
            signal.pause()
    return pid


if __name__ == "__main__":
    main()
