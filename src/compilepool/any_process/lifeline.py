"""A small process that kills one worker when the worker's parent ends.

`worker_initializer` starts it where the kernel's own signal (`die_with_parent`) would come at the
wrong time. It is run by its path, with `-I -S`, and imports only the standard library, so it starts
fast. Its descriptors are the pidfds of the parent (3) and of the worker (4).
"""

import os
import select
import signal

PARENT, WORKER = 3, 4


def main() -> None:
    """Wait until the parent or the worker is dead, in a child whose parent has exited.

    The worker may wait for its own children, and this process must not be one of them.
    """
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
