"""Turns a process into a worker, before it runs any code of the user."""

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

from compilepool.any_process import identity
from compilepool.light_typing import NoReturn
from compilepool.linux import process
from compilepool.linux.spawn import PACKAGE_ROOT
from compilepool.wire.channel import Channel
from compilepool.wire.messages import Kind, Level, json_message, log_message, text_message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.worker_start import WorkerOrders
from compilepool.worker import multiprocessing_identity, random_state
from compilepool.worker.main_module import replace_main
from compilepool.worker.output_capture import write_line_by_line
from compilepool.worker.parking import give_threads_a_stack, report_crashes


def preload(module: str, channel: Channel) -> bool:
    """Import a module, after telling the supervisor, because the import may crash this process.

    Returns:
        False if the import raised. The supervisor has then been told, and this process must exit.
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
    """Do the work that is the same for all workers, before they are forked.

    Memory that is written before the fork is shared. Memory that a worker writes is its own.
    """
    give_threads_a_stack()
    write_line_by_line()
    process.resolve("sigaction", "sigaltstack", "sleep", "prctl")


def bootstrap(
    parent_pid: int, supervisor_pid: int, crash_fd: int, config: PoolConfig, orders: WorkerOrders
) -> None:
    """Make this process a worker. Its counterpart in PyTorch is `_async_compile_initializer`.

    The worker is killed when its parent ends, whatever it is doing. It leads its own session, which
    the terminal's signals do not reach. It becomes the parent of its orphaned descendants. If it
    crashes, it writes a traceback to `crash_fd`. When memory runs out, the kernel kills the worker
    and its children before other processes.

    Args:
        parent_pid: the PID of the fork server.
        supervisor_pid: the PID of the supervisor, whose descendants may trace this process.
        crash_fd: the descriptor of the crash socket.
        config: the configuration of the pool.
        orders: the settings of this worker.
    """
    process.die_with_parent(parent_pid)
    prepare()
    # A worker that was spawned leads its session already.
    with contextlib.suppress(PermissionError):
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
    multiprocessing_identity.become_worker(orders.number)
    random_state.start_anew(config.seed)
    try:
        identity.become_worker_of(parent_pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
    replace_main(config.main_file)


def apply_config(config: PoolConfig) -> None:
    """Give this process the client's `sys.path`, `sys.argv`, working directory and seed.

    From now on, `multiprocessing` knows the client.
    """
    sys.path[:] = config.sys_path
    if PACKAGE_ROOT not in sys.path:
        # The client found this package by other means, such as the hook of an editable install.
        sys.path.append(PACKAGE_ROOT)
    sys.argv[:] = config.argv
    with contextlib.suppress(OSError):
        os.chdir(config.cwd)
    multiprocessing_identity.know_client(config)
    if config.seed is not None:
        random_state.start_anew(config.seed)


def flush_output() -> None:
    """Write out the buffers of stdout and stderr, if that works."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def exit_in_order() -> NoReturn:
    """Run the functions that this process has registered with `atexit`, flush the output, and exit.

    Nothing else of Python's finalization happens.
    """
    atexit._run_exitfuncs()
    flush_output()
    os._exit(0)


def keep_exit_functions_from_forks() -> None:
    """Make sure that processes forked from now on do not run this one's `atexit` functions.

    They run their own, also those that a tool's `os.register_at_fork` hook registers in them.
    `atexit` runs the latest function first, so the function registered here ends a forked process
    before it gets to those of this one.
    """
    owner_pid = os.getpid()

    def exit_if_forked() -> None:
        if os.getpid() != owner_pid:
            flush_output()
            os._exit(0)

    atexit.register(exit_if_forked)
