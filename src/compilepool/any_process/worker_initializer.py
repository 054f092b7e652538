"""`worker_initializer`: makes the worker of another library's process pool a worker of ours."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys

from compilepool.any_process import identity
from compilepool.linux import proc, process
from compilepool.linux.spawn import script_command, spawn


def worker_initializer(parent_pid: int) -> None:
    """Make this process a worker that ends when its owner ends, however that ends.

    It is for `concurrent.futures.ProcessPoolExecutor(initializer=worker_initializer,
    initargs=(os.getpid(),))`, with any start method. From now on, this process ignores SIGINT, and
    writes a Python traceback to stderr if it crashes. `in_toplevel_process` returns False, and
    `has_parent_changed` tells whether the owner is gone. The owner's end kills this process at
    once, even while C code holds the GIL.

    Args:
        parent_pid: the PID of the process that owns the pool.

    Raises:
        TypeError: `parent_pid` is not an int.
        ValueError: `parent_pid` is not positive, or is this process's own pid.
    """
    if not isinstance(parent_pid, int):
        raise TypeError(f"parent_pid must be an int (os.getpid() of the owner), not {parent_pid!r}")
    if parent_pid <= 0:
        raise ValueError(f"parent_pid {parent_pid} is not a pid; pass os.getpid() of the owner")
    if parent_pid == os.getpid():
        raise ValueError("call worker_initializer in a worker, not in the pool's owner")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(all_threads=True)
    try:
        parent_pidfd = identity.become_worker_of(parent_pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        raise  # not reached
    if proc.is_child_of_main_thread(parent_pid):
        process.die_with_parent(parent_pid)
    else:
        # The kernel would send its signal when the thread that forked this process ends, or the
        # multiprocessing fork server, instead of the parent.
        _start_lifeline(parent_pidfd)


def _start_lifeline(parent_pidfd: int) -> None:
    """Start a small process that kills this one when the parent ends. It ends with this one."""
    own_pidfd = os.pidfd_open(os.getpid())
    try:
        command = script_command(["-I", "-S"], "any_process/lifeline.py")
        pid = spawn(command, os.environ, [parent_pidfd, own_pidfd])
    finally:
        os.close(own_pidfd)
    with contextlib.suppress(ChildProcessError):  # the user's program has reaped it
        _, status = os.waitpid(pid, 0)
        if status != 0:
            print("compilepool: this worker may outlive its parent", file=sys.stderr)
