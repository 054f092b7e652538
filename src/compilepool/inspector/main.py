"""Looks at one process once, writes what it has seen, and ends.

A process of its own, so that a debug library that crashes or hangs costs a report, not the pool.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys

from compilepool.inspector.report_writer import Output
from compilepool.inspector.stacks import report_stacks
from compilepool.inspector.target import Target, processes_below
from compilepool.linux import pidfds, proc, process
from compilepool.linux.spawn import FIRST_FD


def ask_for_python_stack(target: Target, number: int) -> str:
    """Signal the process if it catches the signal: otherwise that could kill it.

    Returns:
        Empty, or why no Python stack will come.
    """
    caught = target.status(target.pid, "SigCgt")
    if not proc.has_signal(caught, number):
        return f"Python stack: signal {number} asks for it, and nothing catches that any more"
    if all(proc.has_signal(target.status(tid, "SigBlk"), number) for tid in target.tids()):
        return f"Python stack: signal {number} asks for it, and all threads have blocked that"
    if not pidfds.send_signal(target.pidfd, number):
        return f"Python stack: signal {number} could not be sent"
    if target.state(target.pid) in "Tt":
        return "Python stack: the process is stopped; it is written when the process goes on"
    return ""


def main() -> None:
    """Inspect a process.

    Arguments: "crash" for one that has crashed and parks, or is about to, else "live" or "native";
    its pid; the number of the signal that has it write its Python stack, or 0; the supervisor's
    pid; and what `find_libdw` has found. Descriptors: where to write the report to, and the
    process's pidfd.
    """
    mode, pid, dump_signal, supervisor_pid, *libdw = sys.argv[1:]
    process.die_with_parent(int(supervisor_pid))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # what it looks at may have it crash
    process.set_process_title("compilepool inspector", "cp-inspector")
    output = Output(FIRST_FD)
    target = Target(int(pid), FIRST_FD + 1)
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        _inspect(target, output, mode == "crash", int(dump_signal), "".join(libdw))
    os._exit(0)  # threads that did not stop in time are let go by that


def _inspect(target: Target, output: Output, is_crash: bool, dump_signal: int, libdw: str) -> None:
    if not target.is_alive():
        output.missing("everything: the process was dead before anybody looked at it")
        return
    if not is_crash and dump_signal and (reason := ask_for_python_stack(target, dump_signal)):
        output.missing(reason)
    try:
        report_stacks(target, output, is_crash, libdw)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - of a broken process, anything may be unexpected
        output.missing(f"native stacks: the inspector failed: {type(error).__name__}: {error}")
    if not is_crash and target.is_alive():
        for child in processes_below(target.pid):
            output.write(child)
    output.close()
