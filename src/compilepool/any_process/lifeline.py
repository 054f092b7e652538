"""A small process that kills one worker when its parent ends; see `initializer.py`.

Run by path, isolated, with nothing but the standard library. Descriptors: pidfds of the parent
(3) and of the worker (4).
"""

import os
import select
import signal

PARENT, WORKER = 3, 4


def main() -> None:
    """Watch until one of the two is dead. Not as a child of the worker, which waits for its own."""
    if os.fork() != 0:
        os._exit(0)
    for fd in (0, 1, 2):  # a reader of the parent's output must not wait for this process
        os.close(fd)
    poll = select.poll()
    poll.register(PARENT, select.POLLIN)
    poll.register(WORKER, select.POLLIN)
    if any(fd == PARENT for fd, _ in poll.poll()):
        signal.pidfd_send_signal(WORKER, signal.SIGKILL)
    os._exit(0)


main()
