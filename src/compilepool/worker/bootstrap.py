"""What makes a process a worker, before it runs anything of the user's."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import os
import signal
import sys
import time
import traceback
import types

from compilepool.any_process import identity
from compilepool.light_typing import NoReturn
from compilepool.linux import process
from compilepool.linux.spawn import PACKAGE_ROOT
from compilepool.wire.channel import Channel
from compilepool.wire.messages import Kind, Level, json_message, log_message, text_message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.worker_start import WorkerOrders
from compilepool.worker.output_capture import write_line_by_line
from compilepool.worker.parking import give_threads_a_stack, report_crashes


def preload(module: str, channel: Channel) -> bool:
    """Import a module, telling the supervisor beforehand, in case it crashes us.

    Returns:
        False if it could not be imported. The supervisor knows; this process should exit.
    """
    channel.send(text_message(Kind.IMPORTING, module))
    start = time.monotonic()
    try:
        importlib.import_module(module)
    except BaseException:  # noqa: BLE001 - a module may raise SystemExit, too
        body = {"module": module, "text": traceback.format_exc()}
        channel.send(json_message(Kind.PRELOAD_FAILED, body))
        return False
    seconds = time.monotonic() - start
    channel.send(log_message(Level.DEBUG, __name__, f"imported {module} in {seconds:.3g} s"))
    return True


@functools.cache
def prepare() -> None:
    """Do what all workers need, and need not do each for itself: once for all that are forked.

    What is written before the fork is shared; what a worker writes is its own.
    """
    give_threads_a_stack()
    write_line_by_line()
    process.resolve("sigaction", "sigaltstack", "sleep", "prctl")


def bootstrap(
    parent_pid: int, supervisor_pid: int, crash_fd: int, config: PoolConfig, orders: WorkerOrders
) -> None:
    """Make this process a worker. PyTorch: `_async_compile_initializer`.

    It ends when its parent ends, whatever it does then; leads a session of its own, out of reach
    of the terminal's signals; inherits the orphans below it; and if it crashes, writes a traceback
    to `crash_fd`. When memory runs out, the kernel takes it, or what it has started, before others.

    Args:
        parent_pid: the fork server.
        supervisor_pid: the supervisor, whose children may look into this process.
        crash_fd: the crash socket.
        config: the pool's configuration.
        orders: this worker's.
    """
    process.die_with_parent(parent_pid)
    prepare()
    with contextlib.suppress(PermissionError):  # it leads its session already if it was exec'ed
        os.setsid()
    process.become_subreaper()
    process.set_process_title("compilepool worker", "cp-worker")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    process.allow_ptrace(supervisor_pid)
    process.die_first_for_memory()
    process.use_cpus(orders.cpus, config.nice)
    report_crashes(crash_fd, park=config.native_tracebacks)
    try:
        identity.become_worker_of(parent_pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
    atexit._clear()
    # The user's `__main__` is never imported here: what a job has of it comes by value.
    sys.modules["__main__"] = types.ModuleType("__main__")


def apply_config(config: PoolConfig) -> None:
    """Give this process the client's `sys.path`, `sys.argv` and working directory."""
    sys.path[:] = config.sys_path
    if PACKAGE_ROOT not in sys.path:
        # The client found this package by other means (an editable install's hook).
        sys.path.append(PACKAGE_ROOT)
    sys.argv[:] = config.argv
    with contextlib.suppress(OSError):
        os.chdir(config.cwd)


def flush_output() -> None:
    """Write out what has been printed, if that can be done."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def exit_in_order() -> NoReturn:
    """End this process after what jobs registered with `atexit`, and nothing else."""
    atexit._run_exitfuncs()
    flush_output()
    os._exit(0)
