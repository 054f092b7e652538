"""Entry of the inspector: it inspects one process, writes its report, and ends.

It is a process of its own, so that a debug library that crashes or hangs costs only a report.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from compilepool.inspector.report_writer import ReportWriter
from compilepool.inspector.stacks import report_stacks
from compilepool.inspector.target import Target, processes_below
from compilepool.linux import pidfds, proc, process
from compilepool.linux.spawn import FIRST_FD


def ask_for_python_stack(target: Target, number: int) -> str:
    """Signal a process to write its Python stack.

    The signal is sent only if the process handles it. Otherwise it could kill the process.

    Args:
        target: the process.
        number: the number of the signal that asks for the stack.

    Returns:
        The reason why no Python stack will come; empty if one will.
    """
    caught = target.status(target.pid, "SigCgt")
    if not proc.has_signal(caught, number):
        return f"Python stack: signal {number} asks for it, and nothing catches that any more"
    if all(proc.has_signal(target.status(tid, "SigBlk"), number) for tid in target.tids()):
        return f"Python stack: signal {number} asks for it, and all threads have blocked that"
    if not pidfds.send_signal(target.pidfd, number):
        return f"Python stack: signal {number} could not be sent"
    if target.state(target.pid) in "Tt":
        return "Python stack: the process is stopped; it is written when the process continues"
    return ""


def main() -> None:
    """Inspect a process.

    The arguments are a mode, the PID of the process, the number of the signal that makes it write
    its Python stack (0 for none), the supervisor's PID, and the result of `find_libdw`. The mode is
    "crash" for a process that has crashed and has parked or is about to park, else "live" or
    "native". The descriptors are the one to write the report to, and the pidfd of the process.
    """
    mode, pid, dump_signal, supervisor_pid, *libdw = sys.argv[1:]
    process.die_with_parent(int(supervisor_pid))
    # The inspected process may make this one crash.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    process.set_process_title("compilepool inspector", "cp-inspector")
    writer = ReportWriter(FIRST_FD)
    target = Target(int(pid), FIRST_FD + 1)
    with contextlib.suppress(BrokenPipeError):  # nobody reads the report any more
        _inspect(target, writer, mode == "crash", int(dump_signal), "".join(libdw))
    os._exit(0)  # the kernel now detaches from threads that did not stop in time


def _inspect(
    target: Target, writer: ReportWriter, is_crash: bool, dump_signal: int, libdw: str
) -> None:
    if not target.is_alive():
        writer.missing("everything: the process was dead before anybody looked at it")
        return
    if not is_crash and dump_signal and (reason := ask_for_python_stack(target, dump_signal)):
        writer.missing(reason)
    try:
        report_stacks(target, writer, is_crash, libdw)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken process may cause any error
        writer.missing(f"native stacks: the inspector failed: {type(error).__name__}: {error}")
    if not is_crash and target.is_alive():
        for child in processes_below(target.pid):
            writer.write(child)
    writer.close()
