"""What programs do to descriptors, their own and ours."""

from __future__ import annotations

import os
import resource
import socket
import threading

from tests.habits.habit import kit_habit
from tests.habits.kit import Kit

# What the pool says of a supervisor whose socket is closed, and of what it loses with it.
REPLACED = (
    r"supervisor died; \d+ unfinished jobs are run again",
    r"the trace ends here, because it cannot be written: .*",
    r"progress and trace of this pool stop here, because of an error",
    r"cannot read from the supervisor, which is replaced",
    r"Traceback \(most recent call last\):|  .*|(OSError|BrokenPipeError): \[Errno .*",
)


# What a job had in a descriptor is gone with it.
LOST = ("gets_much/SupervisorDied",)


@kit_habit("early")
def closes_descriptors_first(kit: Kit) -> None:
    os.closerange(3, 256)


@kit_habit("made", group="closes", allows=LOST, says=REPLACED)
def closes_descriptors_of_an_idle_pool(kit: Kit) -> None:
    os.closerange(3, 256)


@kit_habit("started", group="closes", allows=LOST, says=REPLACED)
def closes_descriptors(kit: Kit) -> None:
    os.closerange(3, 256)


@kit_habit("busy", group="closes", allows=LOST, says=REPLACED)
def closes_descriptors_while_jobs_run(kit: Kit) -> None:
    os.closerange(3, 256)


@kit_habit("late", group="closes", allows=LOST, says=REPLACED)
def closes_descriptors_last(kit: Kit) -> None:
    os.closerange(3, 256)


@kit_habit("after", says=REPLACED)
def closes_descriptors_after_the_pool(kit: Kit) -> None:
    os.closerange(3, 256)


@kit_habit("started", group="closes", allows=LOST, says=REPLACED)
def replaces_descriptors(kit: Kit) -> None:
    """Its own files get the numbers of ours; they must stay.

    No job has crashed yet: the thread that writes a crash folder has files open for a moment.
    """
    for kind in ("adds", "gets_much", "returns_much"):
        kit.submit(kind, "descriptors")
    os.closerange(3, 64)
    files = [
        os.open(kit.directory / f"file{number}", os.O_RDWR | os.O_CREAT) for number in range(9)
    ]
    known = [os.fstat(fd).st_ino for fd in files]

    def look() -> None:
        for fd, inode in zip(files, known, strict=True):
            try:
                is_there = os.fstat(fd).st_ino == inode
            except OSError:
                is_there = False
            if not is_there:
                kit.fault(f"the program's descriptor {fd} was closed")

    kit.at_last.append(look)


@kit_habit("started", group="closes", allows=LOST, says=REPLACED)
def dups_over_descriptors(kit: Kit) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3, 40):
        if fd != null and os.path.exists(f"/proc/self/fd/{fd}"):
            os.dup2(null, fd)


@kit_habit("started")
def makes_descriptors_inheritable(kit: Kit) -> None:
    for fd in range(3, 64):
        if os.path.exists(f"/proc/self/fd/{fd}"):
            os.set_inheritable(fd, True)


@kit_habit("started")
def makes_sockets_blocking_or_not(kit: Kit) -> None:
    for fd in range(3, 64):
        try:
            os.set_blocking(fd, not os.get_blocking(fd))
        except OSError:
            continue


@kit_habit("early")
def has_few_descriptors(kit: Kit) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 64), min(most, 64)))


@kit_habit(
    "made", allows=("CompilePoolError", "SerializationError", "SupervisorDied"), says=REPLACED
)
def has_no_descriptor_left_at_first(kit: Kit) -> None:
    _use_up_for_a_while(kit)


@kit_habit(
    "busy", allows=("CompilePoolError", "SerializationError", "SupervisorDied"), says=REPLACED
)
def has_no_descriptor_left(kit: Kit) -> None:
    _use_up_for_a_while(kit)


@kit_habit("early")
def has_many_descriptors(kit: Kit) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
    kit.kept.append([os.open("/", os.O_RDONLY) for _ in range(min(most, 4096) // 2)])


@kit_habit("early")
def has_a_default_timeout(kit: Kit) -> None:
    socket.setdefaulttimeout(0.01)


@kit_habit("early", group="output")
def closes_its_output(kit: Kit) -> None:
    for fd in (0, 1, 2):
        os.close(fd)


@kit_habit("busy")
def opens_and_closes_in_a_thread(kit: Kit) -> None:
    """Numbers are used again and again while the pool opens and closes its own."""

    def churn() -> None:
        for _ in range(2000):
            os.close(os.dup(0) if os.path.exists("/proc/self/fd/0") else os.open("/", os.O_RDONLY))

    thread = threading.Thread(target=churn)
    thread.start()
    kit.at_last.append(thread.join)


def _use_up_for_a_while(kit: Kit) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 64), hard))
    held = []
    try:
        while True:
            held.append(os.open("/", os.O_RDONLY))
    except OSError:
        pass
    for kind in ("adds", "returns_much", "gets_much"):
        kit.submit(kind, "descriptors")
    kit.cancel_endless()
    kit.look_at_all(2)
    for fd in held:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
