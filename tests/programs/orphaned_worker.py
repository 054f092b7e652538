"""A worker whose parent dies, and that lives on: what it is told of its parent.

This process forks a parent, which forks the worker. Only here does it survive the parent: it has
called `become_worker_of` and nothing else of what makes a worker.
"""

import os
import signal

from compilepool import has_parent_changed, in_toplevel_process
from compilepool.any_process.identity import become_worker_of


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def work(parent_pid: int, is_ready: int, is_orphan: int) -> None:
    become_worker_of(parent_pid)
    say(f"top level: {in_toplevel_process()}, parent changed: {has_parent_changed()}")
    os.write(is_ready, b".")
    os.read(is_orphan, 1)
    say(f"top level: {in_toplevel_process()}, parent changed: {has_parent_changed()}")


def main() -> None:
    say(f"top level: {in_toplevel_process()}, parent changed: {has_parent_changed()}")
    ready, is_ready = os.pipe()
    is_orphan, orphan = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            work(os.getppid(), is_ready, is_orphan)
            os._exit(0)
        signal.pause()
    os.read(ready, 1)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    os.write(orphan, b".")


main()
